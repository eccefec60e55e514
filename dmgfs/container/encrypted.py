"""Apple's encrypted images: a whole-file layer around any other container. Version 2 (`encrcdsa`) has its header at the
start, version 1 (`cdsaencr`) its trailer at the end; a sparse bundle keeps either of them in its file `token`.

Rules that hold here: every field is checked before anybody is asked for a passphrase, so a damaged header is never
mistaken for a wrong passphrase where the two can be told apart; all keys of type passphrase are tried; the work that a
header can ask of us is bounded (threats.md U29, U30). Passphrases and keys never reach a message or a log.
"""

import hashlib
import uuid
from dataclasses import dataclass

from construct import Container as Fields

from dmgfs.cache import ChunkCache
from dmgfs.container import Passphrase
from dmgfs.container.blockcipher import AES_BLOCK, BlockCipher, DecryptedSource
from dmgfs.container.encrypted_structs import (
    ALGORITHM_3DES,
    ALGORITHM_AES,
    ALGORITHM_HMAC_SHA1,
    ALGORITHM_PBKDF2,
    HEADER_MAGIC,
    HEADER_SIZE,
    KEY_ITEM_SIZE,
    KEY_PASSPHRASE,
    MODE_CBC,
    MODE_CBC_PADDED,
    PADDING_PKCS7,
    PASSPHRASE_KEY_SIZE,
    TRAILER_MAGIC,
    TRAILER_SIZE,
    Header,
    KeyItem,
    PassphraseKey,
    Trailer,
)
from dmgfs.errors import CorruptImage, NotAnImage, PassphraseNeeded, Unsupported, WrongPassphrase
from dmgfs.source import Buffer, ByteSource, SliceSource

LAYER = "encryption"
# Rounds of PBKDF2 that are done for an image, and with `--slow-key`. Apple's tools calibrate to a quarter of a second and
# wrote 500,000 at most; a million takes 0.7 s here, and nothing can interrupt it.
MOST_ITERATIONS = 2_000_000
MOST_SLOW_ITERATIONS = 50_000_000
_ITERATIONS_PER_SECOND = 1_500_000
MOST_KEYS = 64
MOST_BLOCK_SIZE = 1 << 20
_HMAC_BITS = 160
_KEY_END = b"CKIE\0"
_RFC3217_IV = bytes.fromhex("4adda22c79e82105")
_DES_BLOCK = 8


def recognise(source: ByteSource) -> bool:
    """Whether the bytes begin with a version 2 header or end with a version 1 trailer."""
    return _has_header(source) or _has_trailer(source)


def _has_header(source: ByteSource) -> bool:
    return source.size >= HEADER_SIZE and source.read(0, 8) == HEADER_MAGIC


def _has_trailer(source: ByteSource) -> bool:
    return source.size >= TRAILER_SIZE and source.read(source.size - 8, 8) == TRAILER_MAGIC


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What a header gives once a passphrase opened it. data_offset, data_length: of the ciphertext and of the plaintext,
    in bytes; both mean nothing in a bundle's token. details: JSON-able, for `info`."""

    cipher: BlockCipher
    data_offset: int
    data_length: int
    details: dict[str, object]


def open_encrypted(source: ByteSource, passphrase: Passphrase | None, cache: ChunkCache[Buffer]) -> DecryptedSource:
    """The plaintext of an encrypted image. `passphrase` is called once, after the header proved sound.

    Raises PassphraseNeeded (passphrase is None), WrongPassphrase, Unsupported, CorruptImage; NotAnImage for the token of a
    sparse bundle, which holds no data.
    """
    unlocked = unlock(source, passphrase, token=False)
    size = unlocked.data_length
    block_size = unlocked.cipher.block_size
    whole = -(-size // block_size) * block_size
    ciphertext = SliceSource(source, unlocked.data_offset, min(whole, source.size - unlocked.data_offset))
    return DecryptedSource(ciphertext, unlocked.cipher, size, cache, unlocked.details)


def unlock(source: ByteSource, passphrase: Passphrase | None, *, token: bool) -> Unlocked:
    """The header or trailer of `source`, opened. token: `source` is a sparse bundle's token, whose data is elsewhere.
    Raises as open_encrypted."""
    if _has_header(source):
        return _unlock_header(source, passphrase, token)
    if _has_trailer(source):
        return _unlock_trailer(source, passphrase, token)
    raise NotAnImage("no header of an encrypted image")


def _unlock_header(source: ByteSource, passphrase: Passphrase | None, token: bool) -> Unlocked:
    header = Header.parse(bytes(source.read(0, HEADER_SIZE)))
    if header.version != 2:
        raise Unsupported(f"encryption header version {header.version}")
    _check_data_cipher(header)
    _check_extent(source, header, token)
    keys = _passphrase_keys(source, header)
    _check_iterations(sum(key.fields.kdfIterationCount for key in keys))
    secret = _ask(passphrase)
    key_bytes = header.blockKeyBits // 8
    for key in keys:
        plain = key.open(secret)
        if plain is not None and len(plain) >= key_bytes + _HMAC_BITS // 8:
            iv_key = plain[key_bytes : key_bytes + _HMAC_BITS // 8]
            cipher = BlockCipher(plain[:key_bytes], iv_key, header.blockSize)
            details = _details(header, 2) | {"iterations": key.fields.kdfIterationCount, "keys": header.keyCount}
            return Unlocked(cipher, header.dataOffset, header.dataLength, details)
    raise WrongPassphrase("wrong passphrase, or damaged encryption header")


def _check_data_cipher(fields: Fields) -> None:
    """The fields that header and trailer share. Raises Unsupported and CorruptImage."""
    if fields.blockAlgorithm != ALGORITHM_AES:
        raise Unsupported(f"encryption algorithm {fields.blockAlgorithm:#x}")
    if fields.blockMode != MODE_CBC:
        raise Unsupported(f"encryption mode {fields.blockMode}")
    if fields.blockKeyBits not in (128, 256):
        raise CorruptImage(LAYER, "data key", f"{fields.blockKeyBits} bits long, where 128 or 256 are used")
    if fields.blockIvLength != AES_BLOCK:
        raise CorruptImage(LAYER, "data IV", f"{fields.blockIvLength} bytes long, AES takes {AES_BLOCK}")
    if fields.ivKeyAlgorithm != ALGORITHM_HMAC_SHA1:
        raise Unsupported(f"IV algorithm {fields.ivKeyAlgorithm:#x} of an encrypted image")
    if fields.ivKeyBits != _HMAC_BITS:
        raise CorruptImage(LAYER, "IV key", f"{fields.ivKeyBits} bits long, HMAC-SHA1 takes {_HMAC_BITS}")
    size = fields.blockSize
    if size % 512 or not 512 <= size <= MOST_BLOCK_SIZE:
        raise CorruptImage(LAYER, "block size", f"{size} is no multiple of 512 from 512 to {MOST_BLOCK_SIZE}")


def _check_extent(source: ByteSource, fields: Fields, token: bool) -> None:
    """Data offset and length against the file. The trailer has no data offset: its data starts at 0."""
    offset, length = fields.get("dataOffset", 0), fields.dataLength
    if offset > source.size:
        raise CorruptImage(LAYER, "data offset", f"{offset:#x} lies past the end of the file ({source.size:#x})")
    if token:
        return
    if length == 0:
        raise NotAnImage(
            "an encryption header without data, as in the file `token` of a sparse bundle: open its folder"
        )
    if offset + length > source.size:
        end = offset + length
        raise CorruptImage(LAYER, "data", f"ends at {end:#x}, the file at {source.size:#x}: the image is truncated")
    if length > fields.blockSize << 32:
        raise Unsupported("an encrypted image of more than 2^32 blocks")


def _key_items(source: ByteSource, header: Fields) -> list[Fields]:
    """The items of type passphrase. Raises Unsupported if there are only others."""
    count, area = header.keyCount, header.dataOffset
    if not 1 <= count <= MOST_KEYS or HEADER_SIZE + count * KEY_ITEM_SIZE > area:
        why = f"{count} keys do not fit in the header of {area:#x} bytes, or are none, or more than {MOST_KEYS}"
        raise CorruptImage(LAYER, "key count", why, 0x48)
    table = bytes(source.read(HEADER_SIZE, count * KEY_ITEM_SIZE))
    items = [KeyItem.parse(table[at : at + KEY_ITEM_SIZE]) for at in range(0, len(table), KEY_ITEM_SIZE)]
    usable = [item for item in items if item.type == KEY_PASSPHRASE]
    if not usable:
        kinds = ", ".join(sorted({_KEY_KINDS.get(item.type, f"type {item.type}") for item in items}))
        raise Unsupported(f"an encrypted image without a passphrase (its keys: {kinds})")
    return usable


_KEY_KINDS = {2: "certificate", 3: "key bag"}


class PassphraseKeyBlob:
    """One passphrase key of a version 2 header: checked when made, opened with a passphrase."""

    def __init__(self, source: ByteSource, header: Fields, item: Fields) -> None:
        start, length, area = item.offset, item.length, header.dataOffset
        if length < PASSPHRASE_KEY_SIZE or start + length > area:
            why = f"{length} bytes, which must be {PASSPHRASE_KEY_SIZE} or more and end inside the header ({area:#x})"
            raise CorruptImage(LAYER, "passphrase key", why, start)
        self.fields = PassphraseKey.parse(bytes(source.read(start, PASSPHRASE_KEY_SIZE)))
        fields = self.fields
        _check_derivation(fields)
        self._wrap = KeyWrap(fields.blobAlgorithm, fields.blobKeyBits, fields.blobMode, fields.blobPadding)
        if fields.blobIvLength != self._wrap.block:
            why = f"IV of {fields.blobIvLength} bytes where the cipher takes {self._wrap.block}"
            raise CorruptImage(LAYER, "passphrase key", why, start)
        room = length - PASSPHRASE_KEY_SIZE
        if not 0 < fields.blobLength <= min(room, 512) or fields.blobLength % self._wrap.block:
            why = f"wrapped key of {fields.blobLength} bytes in a record with room for {room}"
            raise CorruptImage(LAYER, "passphrase key", why, start)
        self._blob = bytes(source.read(start + PASSPHRASE_KEY_SIZE, fields.blobLength))

    def open(self, secret: bytes) -> bytes | None:
        """The wrapped keys, None if this passphrase is not the one."""
        key = _derive(secret, self.fields, self._wrap.key_bytes)
        plain = self._wrap.decrypt(key, self.fields.blobIv[: self._wrap.block], self._blob)
        return plain.removesuffix(_KEY_END) if plain is not None and plain.endswith(_KEY_END) else None


class KeyWrap:
    """The cipher that wraps keys, as the algorithm field says: 3DES in every image seen, AES allowed for."""

    def __init__(self, algorithm: int, bits: int, mode: int, padding: int) -> None:
        if algorithm not in (ALGORITHM_3DES, ALGORITHM_AES):
            raise Unsupported(f"key wrap algorithm {algorithm:#x} of an encrypted image")
        if mode != MODE_CBC_PADDED or padding != PADDING_PKCS7:
            raise Unsupported(f"key wrap mode {mode} with padding {padding} of an encrypted image")
        if bits not in ((192,) if algorithm == ALGORITHM_3DES else (128, 192, 256)):
            raise CorruptImage(LAYER, "wrapping key", f"{bits} bits long, which the cipher does not take")
        self.algorithm = algorithm
        self.block = _DES_BLOCK if algorithm == ALGORITHM_3DES else AES_BLOCK
        self.key_bytes = bits // 8

    def decrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes | None:
        """CBC with PKCS #7 padding; None where the padding is wrong, which is what a wrong passphrase looks like."""
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        if not data or len(data) % self.block:
            return None
        cipher = TripleDES(key) if self.algorithm == ALGORITHM_3DES else algorithms.AES(key)
        plain = Cipher(cipher, modes.CBC(iv)).decryptor().update(data)
        pad = plain[-1]
        if not 1 <= pad <= self.block or plain[-pad:] != bytes([pad]) * pad:
            return None
        return plain[:-pad]


def _passphrase_keys(source: ByteSource, header: Fields) -> list[PassphraseKeyBlob]:
    """The keys that this program can try. Raises Unsupported if every one is of a kind it cannot."""
    keys: list[PassphraseKeyBlob] = []
    refused: Unsupported | None = None
    for item in _key_items(source, header):
        try:
            keys.append(PassphraseKeyBlob(source, header, item))
        except Unsupported as error:
            refused = refused or error
    if refused is not None and not keys:
        raise refused
    return keys


def _check_derivation(fields: Fields) -> None:
    if fields.kdfAlgorithm != ALGORITHM_PBKDF2:
        raise Unsupported(f"key derivation {fields.kdfAlgorithm} of an encrypted image")
    if not 0 < fields.kdfSaltLength <= len(fields.kdfSalt):
        raise CorruptImage(LAYER, "salt", f"{fields.kdfSaltLength} bytes long, 1 to {len(fields.kdfSalt)} fit")
    if fields.kdfIterationCount == 0:
        raise CorruptImage(LAYER, "iteration count", "0, PBKDF2 takes at least 1")


def _check_iterations(total: int) -> None:
    if total > MOST_SLOW_ITERATIONS:
        why = f"{total} rounds of PBKDF2, at most {MOST_SLOW_ITERATIONS} are ever done"
        raise CorruptImage(LAYER, "iteration count", why)
    if total > MOST_ITERATIONS:
        what = f"a key of {total} rounds of PBKDF2, some {total // _ITERATIONS_PER_SECOND} s of work,"
        raise Unsupported(what, f"more than {MOST_ITERATIONS} are done only with --slow-key")


def _derive(secret: bytes, fields: Fields, length: int) -> bytes:
    salt = fields.kdfSalt[: fields.kdfSaltLength]
    return hashlib.pbkdf2_hmac("sha1", secret, salt, fields.kdfIterationCount, length)


def _ask(passphrase: Passphrase | None) -> bytes:
    if passphrase is None:
        raise PassphraseNeeded("the image is encrypted and needs a passphrase")
    return passphrase()


def _details(fields: Fields, version: int) -> dict[str, object]:
    return {
        "version": version,
        "cipher": f"AES-{fields.blockKeyBits}",
        "block_size": fields.blockSize,
        "uuid": str(uuid.UUID(bytes=fields.uuid)).upper(),
    }


def _unlock_trailer(source: ByteSource, passphrase: Passphrase | None, token: bool) -> Unlocked:
    start = source.size - TRAILER_SIZE
    trailer = Trailer.parse(bytes(source.read(start, TRAILER_SIZE)))
    if trailer.version != 1:
        raise Unsupported(f"encryption trailer version {trailer.version}")
    _check_data_cipher(trailer)
    if not token and trailer.dataLength > start:
        why = f"ends at {trailer.dataLength:#x}, the trailer begins at {start:#x}: the image is truncated"
        raise CorruptImage(LAYER, "data", why)
    _check_extent(source, trailer, token)
    _check_derivation(trailer)
    _check_iterations(trailer.kdfIterationCount)
    if trailer.keyAlgorithm != ALGORITHM_3DES:  # the double wrap of RFC 3217 is defined for 3DES alone
        raise Unsupported(f"key wrap algorithm {trailer.keyAlgorithm:#x} of an encrypted image, version 1")
    wrap = KeyWrap(trailer.keyAlgorithm, trailer.keyBits, trailer.keyMode, trailer.keyPadding)
    for name, length in (("data key", trailer.wrappedBlockKeyLength), ("IV key", trailer.wrappedIvKeyLength)):
        if not 0 < length <= 256 or length % _DES_BLOCK:
            raise CorruptImage(LAYER, f"wrapped {name}", f"{length} bytes long, in a field of 256")
    wrapping_key = _derive(_ask(passphrase), trailer, wrap.key_bytes)
    key = _unwrap(wrap, wrapping_key, trailer.wrappedBlockKey[: trailer.wrappedBlockKeyLength])
    iv_key = _unwrap(wrap, wrapping_key, trailer.wrappedIvKey[: trailer.wrappedIvKeyLength])
    if key is None or len(key) * 8 != trailer.blockKeyBits or iv_key is None or len(iv_key) * 8 != _HMAC_BITS:
        raise WrongPassphrase("wrong passphrase, or damaged encryption trailer")
    details = _details(trailer, 1) | {"iterations": trailer.kdfIterationCount}
    return Unlocked(BlockCipher(key, iv_key, trailer.blockSize), 0, trailer.dataLength, details)


def _unwrap(wrap: KeyWrap, wrapping_key: bytes, blob: bytes) -> bytes | None:
    """Key wrap in the shape of RFC 3217: decrypted, reversed, decrypted again; four zero bytes precede the key."""
    once = wrap.decrypt(wrapping_key, _RFC3217_IV, blob)
    if once is None or len(once) <= _DES_BLOCK:
        return None
    once = once[::-1]
    twice = wrap.decrypt(wrapping_key, once[:_DES_BLOCK], once[_DES_BLOCK:])
    return twice[4:] if twice is not None and twice[:4] == bytes(4) else None
