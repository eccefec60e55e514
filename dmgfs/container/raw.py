"""Raw disks: the file's bytes are the disk (UDRW, CD masters, .iso, .img). Also the names of what is *not* a disk image
though people try to mount it, so that the error can say what it is instead of "no partition found".
"""

from pathlib import Path

from dmgfs.container import Container
from dmgfs.errors import NotAnImage, Unsupported
from dmgfs.source import ByteSource

_SECTOR = 512

_ALIENS = (
    (
        b"xar!",
        "a XAR archive (an installer package)",
        "extract it with `xar` or `7z` and mount the disk image inside",
    ),
    (b"PK\x03\x04", "a ZIP archive", "unzip it and mount the disk image inside"),
    (b"\x1f\x8b", "gzip-compressed", "decompress it with `gunzip` first"),
    (b"BZh", "bzip2-compressed", "decompress it with `bunzip2` first"),
    (b"\xfd7zXZ\x00", "xz-compressed", "decompress it with `unxz` first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "decompress it with `unzstd` first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "extract it with `7z` first"),
    (b"AA01", "an Apple Archive", "extract it with `aa` on a Mac first"),
    (b"pbzx", "a pbzx payload of an installer package", "unpack it first"),
    (b"<!DOCTYPE html", "a web page", "the download went wrong; fetch the image again"),
    (b"<html", "a web page", "the download went wrong; fetch the image again"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the image with `git lfs pull`"),
)


def refuse_asif(source: ByteSource) -> None:
    """Raises Unsupported for an Apple sparse image format file (macOS 26)."""
    if bytes(source.read(0, min(4, source.size))) == b"shdw":
        raise Unsupported("an ASIF sparse image", "convert it on a Mac: hdiutil convert IMAGE -format ULFO -o NEW")


def has_volume_or_map(source: ByteSource) -> bool:
    """Whether a disk begins here: GPT, APM, HFS or HFS+. Such images need no search for a resource fork."""
    head = bytes(source.read(0, min(1026, source.size)))
    return head[:2] == b"ER" or head[512:520] == b"EFI PART" or head[1024:1026] in (b"H+", b"HX", b"BD")


def open_raw(source: ByteSource, path: Path | None) -> Container:
    """The disk is the file. Raises NotAnImage, naming what it is, for what cannot be a disk."""
    head = bytes(source.read(0, min(64, source.size)))
    for magic, what, advice in _ALIENS:
        if head.startswith(magic):
            raise NotAnImage(f"not a disk image but {what}: {advice}")
    if head[:1] == b"\x30" and b"IM4P" in head[:24]:
        raise NotAnImage("not a disk image but an Apple IM4P firmware container: extract its payload first")
    if source.size < _SECTOR:
        raise NotAnImage(f"not a disk image: {source.size} bytes are less than one sector")
    details = {"size": source.size, "warnings": []}
    return Container("raw", source, details, [path] if path else [])
