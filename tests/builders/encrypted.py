"""Builds encrypted images and tokens, version 1 and 2, block by block with one cipher call each: written from the format's
tables, shares no code with the reader. Every field can be overridden to make a damaged header."""

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PASSPHRASE = b"correct horse"
AES, TRIPLE_DES = 0x80000001, 0x11


def _pattern(label: bytes, length: int) -> bytes:
    """Bytes that look random and are the same in every run."""
    return hashlib.shake_128(label).digest(length)


def _cbc(cipher: str, key: bytes, iv: bytes, data: bytes) -> bytes:
    algorithm = TripleDES(key) if cipher == "3des" else algorithms.AES(key)
    encryptor = Cipher(algorithm, modes.CBC(iv)).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _padded(data: bytes, block: int) -> bytes:
    pad = block - len(data) % block
    return data + bytes([pad]) * pad


@dataclass
class Keys:
    """bits: of the AES key. block: bytes a block."""

    bits: int = 128
    block: int = 512
    aes: bytes = b""
    mac: bytes = field(default_factory=lambda: _pattern(b"mac", 20))

    def __post_init__(self) -> None:
        self.aes = self.aes or _pattern(b"aes", self.bits // 8)

    def encrypt(self, plain: bytes, *, pad_last: bool = True) -> bytes:
        """Ciphertext, block numbers from 0. pad_last: the last block is filled up with noise."""
        out = []
        for number, start in enumerate(range(0, len(plain), self.block)):
            block = plain[start : start + self.block]
            if pad_last:
                block += _pattern(b"slack", self.block - len(block))
            iv = hmac.new(self.mac, struct.pack(">I", number), "sha1").digest()[:16]
            out.append(_cbc("aes", self.aes, iv, block))
        return b"".join(out)


def passphrase_blob(
    keys: Keys, passphrase: bytes, *, iterations: int = 3, wrap: str = "3des", **fields: int | bytes
) -> bytes:
    """A type 1 key item's record, 616 bytes."""
    salt = fields.get("salt", _pattern(b"salt" + passphrase, 20))
    key_bits = fields.get("key_bits", 192 if wrap == "3des" else 256)
    size = 8 if wrap == "3des" else 16
    iv = _pattern(b"iv", size)
    kek = hashlib.pbkdf2_hmac("sha1", passphrase, salt, iterations, key_bits // 8)
    blob = _cbc(wrap, kek, iv, _padded(keys.aes + keys.mac + b"CKIE\0", size))
    record = struct.pack(
        ">IIII32sI32sIIIII",
        fields.get("kdf", 103),
        0,
        fields.get("claimed_iterations", iterations),
        fields.get("salt_length", len(salt)),
        salt,
        fields.get("iv_length", size),
        iv,
        fields.get("claimed_bits", key_bits),
        fields.get("algorithm", TRIPLE_DES if wrap == "3des" else AES),
        fields.get("padding", 7),
        fields.get("mode", 6),
        fields.get("blob_length", len(blob)),
    )
    return (record + blob).ljust(616, b"\0")


def header_v2(keys: Keys, length: int, blobs: list[tuple[int, bytes]], *, offset: int = 8192, **fields: int) -> bytes:
    """The header of version 2, `offset` bytes. blobs: (type, record) for each key item."""
    head = struct.pack(
        ">8s7I16sIQQI",
        b"encrcdsa",
        fields.get("version", 2),
        fields.get("iv_length", 16),
        fields.get("mode", 5),
        fields.get("algorithm", AES),
        fields.get("bits", keys.bits),
        fields.get("iv_algorithm", 0x5B),
        fields.get("iv_bits", 160),
        _pattern(b"uuid", 16),
        fields.get("block", keys.block),
        fields.get("claimed_length", length),
        fields.get("data_offset", offset),
        fields.get("count", len(blobs)),
    )
    items, records, at = b"", b"", len(head) + 20 * len(blobs)  # as Apple: right behind the items
    for kind, record in blobs:
        items += struct.pack(">IQQ", kind, fields.get("item_offset", at), fields.get("item_length", len(record)))
        records += record
        at += len(record)
    return (head + items + records).ljust(offset, b"\0")


def encrypt_v2(
    plain: bytes, passphrase: bytes = PASSPHRASE, *, bits: int = 128, block: int = 512, wrap: str = "3des"
) -> bytes:
    """A whole image of version 2 with one passphrase key."""
    keys = Keys(bits, block)
    return header_v2(keys, len(plain), [(1, passphrase_blob(keys, passphrase, wrap=wrap))]) + keys.encrypt(plain)


def _wrap_v1(kek: bytes, key: bytes) -> bytes:
    inner_iv = _pattern(b"cms", 8)
    once = inner_iv + _cbc("3des", kek, inner_iv, _padded(bytes(4) + key, 8))
    return _cbc("3des", kek, bytes.fromhex("4adda22c79e82105"), _padded(once[::-1], 8))


def trailer_v1(
    keys: Keys, length: int, passphrase: bytes = PASSPHRASE, *, iterations: int = 3, **fields: int
) -> bytes:
    """The trailer of version 1, 1276 bytes."""
    salt = _pattern(b"salt", 20)
    kek = hashlib.pbkdf2_hmac("sha1", passphrase, salt, iterations, 24)
    wrapped_key, wrapped_mac = _wrap_v1(kek, keys.aes), _wrap_v1(kek, keys.mac)
    trailer = struct.pack(
        ">16s6I4I32s4I32sI256sII32sI256sII32sI256sI256sQI8s",
        _pattern(b"uuid", 16),
        fields.get("block", keys.block),
        fields.get("wrap", TRIPLE_DES),
        fields.get("padding", 7),
        fields.get("wrap_mode", 6),
        fields.get("wrap_bits", 192),
        8,
        fields.get("kdf", 103),
        0,
        fields.get("claimed_iterations", iterations),
        fields.get("salt_length", len(salt)),
        salt,
        fields.get("iv_length", 16),
        fields.get("mode", 5),
        fields.get("algorithm", AES),
        fields.get("bits", keys.bits),
        b"",
        fields.get("key_length", len(wrapped_key)),
        wrapped_key,
        fields.get("iv_algorithm", 0x5B),
        fields.get("iv_bits", 160),
        b"",
        fields.get("mac_length", len(wrapped_mac)),
        wrapped_mac,
        0,
        0,
        b"",
        0,
        b"",
        0,
        b"",
        fields.get("claimed_length", length),
        fields.get("version", 1),
        b"cdsaencr",
    )
    assert len(trailer) == 1276
    return trailer


def encrypt_v1(plain: bytes, passphrase: bytes = PASSPHRASE, *, bits: int = 128, block: int = 4096) -> bytes:
    """A whole image of version 1."""
    keys = Keys(bits, block)
    return keys.encrypt(plain) + trailer_v1(keys, len(plain), passphrase)
