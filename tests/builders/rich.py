"""A volume with one of everything that verbs can meet, and how it becomes an image."""

from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build


def rich_volume() -> HfsPlusBuilder:
    """A volume with one of everything that can be extracted."""
    builder = HfsPlusBuilder(name="Rich")
    folder = builder.folder(ROOT, "Folder", mode=0o40750, uid=1234, gid=77)
    builder.file(folder, "program", b"#!/bin/sh\n", mode=0o104755, uid=1234, gid=77)
    builder.file(ROOT, "text", b"Hello", attributes={"com.example": b"\0\xffvalue"}, finder=b"TEXTttxt" + bytes(24))
    builder.file(ROOT, "forked", b"data", resource=b"resource" * 10)
    builder.file(ROOT, "large fork", b"data", resource=b"R" * 70000)
    builder.file(ROOT, "a/b", b"slash")
    builder.file(ROOT, "e\u0301t\u00e9", b"accents")
    builder.file(ROOT, "control\x1b[31m", b"escape")
    builder.file(ROOT, "holes", b"begin".ljust(200_000, b"\0") + b"end" + bytes(100_000))
    builder.file(ROOT, "hidden", b"", flags=0x8000, finder=bytes(8) + b"\x40" + bytes(23))
    builder.file(ROOT, "old", b"", dates=(1000,) * 5)
    builder.symlink(ROOT, "link", b"Folder/program")
    builder.symlink(ROOT, "way out", b"/etc")
    builder.file(ROOT, "pipe", mode=0o010600)
    builder.file(ROOT, "null", mode=0o020666, special=1 << 24 | 3)
    builder.inode(7, b"linked", 2)
    builder.file_link(ROOT, "first name", 7)
    builder.file_link(folder, "second name", 7)
    builder.file_link(ROOT, "leads nowhere", 99)
    return builder


def as_udif(volume: bytes, codec: str = "zlib") -> bytes:
    volume += bytes(-len(volume) % 512)
    return build([Table("whole disk (Apple_HFS : 0)", [Piece(codec, volume)])]).bytes
