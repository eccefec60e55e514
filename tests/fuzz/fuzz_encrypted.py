"""Fuzzes the headers of encrypted images, both versions, and reading what they open."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.container import encrypted

from builders.encrypted import PASSPHRASE, Keys, encrypt_v1, encrypt_v2, header_v2, passphrase_blob, trailer_v1

from dmgfs.cache import ChunkCache
from dmgfs.errors import DmgError
from dmgfs.source import MemorySource

encrypted.MOST_ITERATIONS = 20  # the bound itself is tested elsewhere; here it would only cost time


def one_input(data: bytes) -> None:
    source = MemorySource(data)
    try:
        if encrypted.recognise(source):
            encrypted.unlock(source, lambda: PASSPHRASE, token=True)
            plain = encrypted.open_encrypted(source, lambda: PASSPHRASE, ChunkCache(1 << 16))
            plain.read(0, min(plain.size, 1 << 14))
            plain.cold(plain.size // 2, plain.size)
    except DmgError:
        pass


def seeds() -> list[bytes]:
    keys = Keys()
    two = [
        (2, b"certificate"),
        (1, passphrase_blob(keys, b"other")),
        (1, passphrase_blob(keys, PASSPHRASE, wrap="aes")),
    ]
    plain = bytes(range(256)) * 6
    return [
        encrypt_v1(plain, block=512),
        encrypt_v2(plain, bits=256),
        header_v2(keys, 1536, two, offset=4096) + keys.encrypt(plain),
        header_v2(keys, 0, two, offset=4096),
        trailer_v1(keys, 0),
    ]


if __name__ == "__main__":
    fuzz(one_input, seeds())
