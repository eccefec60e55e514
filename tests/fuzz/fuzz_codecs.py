"""Fuzzes every decoder. An input is: which decoder (one byte), the expected length (two bytes), the stream."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.codecs import adc, bzip2, inflate, lzbitmap, lzfse, lzvn, xz

from builders.packing import pack

from dmgfs.errors import DmgError


def lzvn_alone(data: bytes, expected: int) -> bytearray:
    out = bytearray()
    lzvn.expand(data, out, expected)
    return out


DECODERS = (
    adc.decode,
    inflate.decode,
    bzip2.decode,
    lzfse.decode,
    lzvn.decode,
    lzbitmap.decode,
    xz.decode,
    lzfse.decode_slowly,
    lzvn_alone,
)


def one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    expected = int.from_bytes(data[1:3])
    try:
        out = DECODERS[data[0] % len(DECODERS)](data[3:], expected)
    except DmgError:
        return
    assert len(out) == expected


def seeds() -> list[bytes]:
    contents = [b"x", b"abc" * 100, bytes(5000), bytes(i * i >> 4 & 0xFF for i in range(6000))]
    order = ("adc", "zlib", "bzip2", "lzfse", "lzvn", "lzbitmap", "xz", "lzfse", "lzvn")
    return [
        bytes([number]) + len(content).to_bytes(2) + pack(codec, content)
        for number, codec in enumerate(order)
        for content in contents
    ]


if __name__ == "__main__":
    fuzz(one_input, seeds())
