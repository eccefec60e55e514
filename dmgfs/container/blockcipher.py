"""The bulk cipher of encrypted images: AES-CBC in blocks of 512 or 4096 bytes, each with an IV of its own,
HMAC-SHA1(iv key, number of the block as a big-endian u32) cut to 16 bytes.

One decryptor per block costs 3 µs, which is 110 MB/s with blocks of 512 bytes. CBC chains through the ciphertext, so an IV
put *into* the ciphertext in front of its block acts as that block's IV, and decrypts to 16 bytes to be thrown away: one
call decrypts a whole span, 3.5 times as fast for small blocks. What then remains is two SHA-1 compressions per block.

Rules that hold here: `cryptography` is imported when a cipher is made, never by importing this file, and never later than
that; a BlockCipher does not change and may be used from any thread.
"""

import hashlib
import struct
from collections.abc import Sequence
from functools import partial

from dmgfs.cache import ChunkCache
from dmgfs.source import Buffer, ByteSource, Cold, Load, check_range, may_block

AES_BLOCK = 16
_SHA1_BLOCK = 64
_number = struct.Struct(">I").pack


class BlockCipher:
    """key: 16 or 32 bytes (AES-128, AES-256). iv_key: the HMAC key, at most 64 bytes. block_size: bytes, a multiple of
    16."""

    def __init__(self, key: bytes, iv_key: bytes, block_size: int) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self.block_size = block_size
        padded = iv_key.ljust(_SHA1_BLOCK, b"\0")
        # Hashes that already took the padded key: copying them halves the work of an HMAC over 4 bytes.
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in padded), usedforsecurity=False)
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in padded), usedforsecurity=False)
        self._cipher = Cipher(algorithms.AES(key), modes.CBC(bytes(AES_BLOCK)))

    def decrypt(self, first_block: int, ciphertext: Buffer) -> bytes:
        """Plaintext of the blocks from number `first_block` on, as long as `ciphertext`: whole blocks, but the last may
        be any multiple of 16 bytes. Block numbers must stay below 2^32."""
        size = self.block_size
        view = memoryview(ciphertext)
        copy_inner, copy_outer = self._inner.copy, self._outer.copy
        chain: list[Buffer] = []
        for block, start in enumerate(range(0, len(view), size), first_block):
            inner = copy_inner()
            inner.update(_number(block))
            outer = copy_outer()
            outer.update(inner.digest())
            chain.append(outer.digest()[:AES_BLOCK])  # the block's IV
            chain.append(view[start : start + size])
        plain = memoryview(self._cipher.decryptor().update(b"".join(chain)))
        return b"".join([plain[start : start + size] for start in range(AES_BLOCK, len(plain), AES_BLOCK + size)])


class DecryptedSource:
    """The plaintext of `ciphertext` as a byte source of `size` bytes; block 0 starts at offset 0 of it.

    A thread that may wait decrypts exactly the blocks it asked for and keeps nothing: above lie caches of what the
    plaintext means, and ciphertext of compressed chunks is read once. Only the thread that must not wait is served from
    the cache, in units that its loads fill.
    """

    UNIT = 128 << 10

    def __init__(
        self,
        ciphertext: ByteSource,
        cipher: BlockCipher,
        size: int,
        cache: ChunkCache[Buffer],
        details: dict[str, object],
    ) -> None:
        self.size = size
        self.details = details
        self._ciphertext = ciphertext
        self._cipher = cipher
        self._cache = cache
        self._identity = object()
        self._unit = max(self.UNIT // cipher.block_size, 1) * cipher.block_size
        # The last block is stored whole even where the plaintext ends inside it; a file cut there still has its data.
        self._stored = ciphertext.size // AES_BLOCK * AES_BLOCK

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "encryption")
        if length == 0:
            return b""
        if may_block():
            return self._decrypt(offset, length)
        try:
            units = [self._cached(unit) for unit in self._units(offset, length)]
        except Cold:
            raise Cold(self.cold(offset, length)) from None
        skip = offset % self._unit
        if len(units) == 1:
            return memoryview(units[0])[skip : skip + length]
        return memoryview(b"".join(units))[skip : skip + length]

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        return tuple(
            load
            for unit in self._units(offset, length)
            for load in self._cache.load_for((self._identity, unit), partial(self._decrypt_unit, unit))
        )

    def _units(self, offset: int, length: int) -> range:
        return range(offset // self._unit, (offset + length - 1) // self._unit + 1)

    def _cached(self, unit: int) -> Buffer:
        return self._cache.get((self._identity, unit), partial(self._decrypt_unit, unit))

    def _decrypt_unit(self, unit: int) -> bytes:
        start = unit * self._unit
        return self._decrypt(start, min(self._unit, self.size - start))

    def _decrypt(self, offset: int, length: int) -> bytes:
        """Decrypted a unit's worth at a time, so that each step stays in the processor's cache."""
        size = self._cipher.block_size
        end = offset + length
        parts = []
        at = offset - offset % size
        while at < end:
            stop = min(at + self._unit, self._stored, -(-end // size) * size)
            parts.append(self._cipher.decrypt(at // size, self._ciphertext.read(at, stop - at)))
            at += self._unit
        plain = parts[0] if len(parts) == 1 else b"".join(parts)
        skip = offset % size
        return plain if len(plain) == length else plain[skip : skip + length]
