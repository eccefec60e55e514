"""Raw disks: the file's bytes are the disk (UDRW, CD masters, .iso, .img). Also the names of what is *not* a disk image
though people try to mount it, so that the error can say what it is instead of "no partition found".
"""

from pathlib import Path

from dmgfs.container import Container
from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
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

_FIRST_RUNS = ((b"bvx", "LZFSE"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
"""How the first run of a UDIF may begin; zlib has no magic bytes, only a check."""


def refuse_headless(source: ByteSource, path: Path | None) -> None:
    """Raises CorruptImage for a UDIF that has lost its end, and with it all its tables: the most frequent damage there is,
    a download that broke off. It still begins with the first compressed run."""
    head = bytes(source.read(0, min(_SECTOR, source.size)))
    name = path.name.lower() if path is not None else ""
    zlib = head[:1] == b"\x78" and int.from_bytes(head[:2]) % 31 == 0
    coding = next((coding for magic, coding in _FIRST_RUNS if head.startswith(magic)), "zlib" if zlib else "")
    if not coding or has_volume_or_map(source) or head[510:512] == b"\x55\xaa":
        return
    if coding in ("bzip2", "xz") and not name.endswith(".dmg"):
        return  # more often a file of that kind
    raise CorruptImage(
        "UDIF",
        "trailer",
        f"none at the end of the file, though it begins like one ({coding} data): the image is truncated; fetch it again",
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
    """The disk is the file. Raises NotAnImage, naming what it is, for what cannot be a disk, CorruptImage for the rest of a
    UDIF."""
    refuse_headless(source, path)
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
