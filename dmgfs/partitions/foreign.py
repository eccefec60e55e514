"""What a disk without any volume really is: formats that people hand over by mistake, by their first bytes."""

from dmgfs.source import ByteSource

_FORMATS = (
    (0, b"xar!", "a XAR archive (an installer package); unpack it with `xar -xf` or `7z x`"),
    (0, b"PK\x03\x04", "a ZIP archive; unzip it first"),
    (0, b"\x1f\x8b", "a gzip file; gunzip it first"),
    (0, b"BZh", "a bzip2 file; bunzip2 it first"),
    (0, b"\xfd7zXZ\0", "an xz file; unxz it first"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file; unzstd it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (0, b"QFI\xfb", "a QEMU qcow2 disk; `qemu-img convert -O raw` makes it readable"),
    (0, b"KDMV", "a VMware disk; `qemu-img convert -O raw` makes it readable"),
    (0, b"hsqs", "a squashfs image, not an Apple one"),
    (0, b"bplist00", "a property list"),
    (0, b"<?xml", "an XML file"),
    (0, b"<!DOCTYPE", "a web page: perhaps the download failed"),
    (0, b"<html", "a web page: perhaps the download failed"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the image itself was not fetched"),
    (0, b"AA01", "an Apple Archive"),
    (0, b"\x7fELF", "a program"),
    (257, b"ustar", "a tar archive"),
)


def foreign_format(disk: ByteSource) -> str | None:
    """A phrase like "a ZIP archive; unzip it first", None if the bytes say nothing. Raises what `disk.read` raises."""
    if disk.size == 0:
        return "an empty file"
    head = bytes(disk.read(0, min(disk.size, 512)))
    for offset, magic, what in _FORMATS:
        if head[offset : offset + len(magic)] == magic:
            return what
    if b"IM4P" in head[:16]:
        return "an Apple Image4 payload (firmware), which may be encrypted"
    return None
