"""A playlist: which parts of an image's disk a start touches, and which files of its volume it opens, in the order of the
first touch. It belongs to one image and is good for nothing but speed.

    dmgfs playlist 2
    image 3f2a...            (32 hexadecimal digits, see `identity_of`)
    disk 386547712           (bytes)
    20480 262144             (offset and length of one part, bytes of the virtual disk, and so on)
    file 1234                (number of a file, and so on)

Rules that hold here:
- text, bounded: a file of more than MOST_BYTES, MOST_PARTS or MOST_FILES is refused, not read. Version 1, which is still
  read and is written where there are no files, has parts only;
- a part must lie on the disk and must not be longer than MOST_LENGTH; it may stand in a list again where it was touched
  again much later;
- whoever wrote the file gains nothing: what it names is read from the image it is used with, in the background, and
  thrown away if nobody asks for it.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from dmgfs.container import Container
from dmgfs.errors import CorruptImage, NotAnImage, Unsupported

VERSIONS = ("1", "2")
MOST_PARTS = 1 << 16
MOST_FILES = 1 << 16
MOST_BYTES = 4 << 20
MOST_LENGTH = 16 << 20
HEAD = 64 << 10

_MAGIC = "dmgfs playlist "
_IMAGE = re.compile(r"image ([0-9a-f]{32})\Z")
_DISK = re.compile(r"disk ([0-9]{1,19})\Z")
_FILE = re.compile(r"file ([0-9]{1,10})\Z")
_PART = re.compile(r"([0-9]{1,19}) ([0-9]{1,8})\Z")

Part = tuple[int, int]
"""offset, length: bytes of the disk."""


@dataclass(frozen=True, slots=True)
class Playlist:
    """image: identity. disk: bytes of the virtual disk. parts: in the order in which they were touched. files: numbers, in
    the order in which they were opened."""

    image: str
    disk: int
    parts: tuple[Part, ...]
    files: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Of the disk, each part once."""
        return sum(dict(self.parts).values())


def identity_of(container: Container) -> str:
    """32 hexadecimal digits that two images share only if they hold the same: of sizes, segment id and checksums where
    the format has them, else of sizes and the beginning of the disk. Raises as a read of the disk's beginning does."""
    details = container.details
    facts = {key: details.get(key) for key in ("size", "data_length", "checksums", "tables", "segment", "codecs")}
    digest = hashlib.sha256(json.dumps([container.kind, container.disk.size, facts], sort_keys=True).encode())
    if not any((details.get("checksums") or {}).values()):
        digest.update(container.disk.read(0, min(HEAD, container.disk.size)))
    return digest.hexdigest()[:32]


def to_text(playlist: Playlist) -> bytes:
    lines = [f"{_MAGIC}{VERSIONS[1 if playlist.files else 0]}", f"image {playlist.image}", f"disk {playlist.disk}"]
    lines += [f"{offset} {length}" for offset, length in playlist.parts]
    lines += [f"file {number}" for number in playlist.files]
    return ("\n".join(lines) + "\n").encode("ascii")


def from_text(data: bytes) -> Playlist:
    """Raises NotAnImage (no playlist at all), Unsupported (another version), CorruptImage (with the line)."""
    if not data.startswith(_MAGIC.encode()):
        raise NotAnImage("not a playlist: it does not begin with `dmgfs playlist`")
    if len(data) > MOST_BYTES:
        raise CorruptImage("playlist", "file", f"more than {MOST_BYTES} bytes long")
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise CorruptImage("playlist", "file", "not plain text", error.start) from None
    version = lines[0][len(_MAGIC) :].strip()
    if version not in VERSIONS:
        raise Unsupported(f"version {version[:20]!r} of playlists", "record it anew")
    image, disk = (_field(lines, number, pattern) for number, pattern in ((1, _IMAGE), (2, _DISK)))
    size = int(disk)
    end = next((at for at in range(3, len(lines)) if lines[at].startswith("file ")), len(lines))
    files = _files(lines, end)
    if end - 3 > MOST_PARTS:
        raise CorruptImage("playlist", "file", f"{end - 3} parts, at most {MOST_PARTS} are taken")
    parts: list[Part] = []
    for number, line in enumerate(lines[3:end], 4):
        match = _PART.match(line)
        if match is None:
            raise CorruptImage("playlist", f"line {number}", "not an offset and a length")
        offset, length = int(match[1]), int(match[2])
        if not 0 < length <= MOST_LENGTH or offset + length > size:
            why = f"{length} bytes at {offset} are not on a disk of {size}, or more than {MOST_LENGTH}"
            raise CorruptImage("playlist", f"line {number}", why)
        parts.append((offset, length))
    return Playlist(image, size, tuple(parts), files)


def _files(lines: list[str], start: int) -> tuple[int, ...]:
    """From line `start` on to the end."""
    if len(lines) - start > MOST_FILES:
        raise CorruptImage("playlist", "file", f"{len(lines) - start} files, at most {MOST_FILES} are taken")
    found: list[int] = []
    for number, line in enumerate(lines[start:], start + 1):
        match = _FILE.match(line)
        if match is None:
            raise CorruptImage("playlist", f"line {number}", "not the number of a file")
        found.append(int(match[1]))
    return tuple(found)


def _field(lines: list[str], number: int, pattern: re.Pattern[str]) -> str:
    match = pattern.match(lines[number]) if number < len(lines) else None
    if match is None:
        raise CorruptImage("playlist", f"line {number + 1}", f"not `{pattern.pattern.partition(' ')[0]} ...`")
    return match[1]


def read_file(name: str, dir_fd: int | None = None) -> Playlist:
    """Raises OSError, and what `from_text` raises."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAnImage("not a regular file")
        return from_text(file.read(MOST_BYTES + 1))


def write_file(playlist: Playlist, name: str, dir_fd: int | None = None) -> None:
    """The whole file or none of it. `name` is in the folder `dir_fd`. Raises OSError."""
    beside = f"{name}.{os.getpid()}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(beside, flags, 0o644, dir_fd=dir_fd)
    except FileExistsError:
        os.unlink(beside, dir_fd=dir_fd)  # left by a process of our number that was killed
        descriptor = os.open(beside, flags, 0o644, dir_fd=dir_fd)
    try:
        with open(descriptor, "wb") as file:
            file.write(to_text(playlist))
        os.rename(beside, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        os.unlink(beside, dir_fd=dir_fd)
        raise


def merge(lists: Iterable[Playlist]) -> Playlist:
    """One list of several for one image: the first as it is, then what the others touched besides. Raises CorruptImage
    if they are for different images, or too long together."""
    first, *others = lists
    parts, known = list(first.parts), {offset for offset, _ in first.parts}
    for number, other in enumerate(others, 2):
        if (other.image, other.disk) != (first.image, first.disk):
            raise CorruptImage("playlist", f"list {number}", "is for another image than the first")
        new = [part for part in other.parts if part[0] not in known]
        parts += new
        known.update(offset for offset, _ in new)
    files = tuple(dict.fromkeys(number for one in (first, *others) for number in one.files))[:MOST_FILES]
    if len(parts) > MOST_PARTS:
        raise CorruptImage("playlist", "merged list", f"{len(parts)} parts, at most {MOST_PARTS} are taken")
    return Playlist(first.image, first.disk, tuple(parts), files)


def trim(playlist: Playlist, most_bytes: int) -> Playlist:
    """As much of the beginning as stays within `most_bytes` of disk. The files stay: they cost no reading ahead."""
    known: set[int] = set()
    total = 0
    for number, (offset, length) in enumerate(playlist.parts):
        if offset not in known:
            known.add(offset)
            total += length
            if total > most_bytes:
                return Playlist(playlist.image, playlist.disk, playlist.parts[:number], playlist.files)
    return playlist
