"""The members of a tar archive: in a file, or in a stream that comes once, compressed or not.

Rules that hold here:
- the standard library's tarfile reads the headers, but takes a damaged one for the end of the archive: here that is an
  error, as it is for GNU tar;
- a stream is read to its very end: there stand the checksum and the length of a compressed one, and who writes into a pipe
  wants to get rid of all of it;
- no header takes more memory than `_MOST_HEADER`, and members that were given out are forgotten;
- extended attributes are those of GNU tar and libarchive (SCHILY.xattr, LIBARCHIVE.xattr).
"""

import base64
import binascii
import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from tarfile import HeaderError, ReadError, StreamError, TarError, TarFile, TarInfo
from typing import IO, Any, Self, cast

from dmgfs.errors import CorruptImage, NotAnImage

_BLOCK = 1 << 20
_RECORD = 512
_MOST_HEADER = 64 << 20
"""Bytes of an extended header or of a long name."""

_SCHILY, _LIBARCHIVE = "SCHILY.xattr.", "LIBARCHIVE.xattr."
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_MOST_HEADERS = 100
"""Of one member; tarfile goes one call deeper with each."""

_LENGTH = re.compile(rb"([0-9]{1,9}) ")
_NoHeader, _EndMark = cast(Any, tarfile).EmptyHeaderError, cast(Any, tarfile).EOFHeaderError

_BROKEN = (TarError, ValueError, IndexError, OverflowError)
"""What tarfile raises over headers that make no sense."""

_MAGIC: tuple[tuple[bytes, str, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b\x08", "gzip", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zXZ\0", "xz", lzma.LZMAFile),
    (b"\x5d\0\0\x80", "lzma", lzma.LZMAFile),
)
_HEAD = 6

NO_END = "the archive has no end mark; if it was cut, that was between two members"
HALF_END = "the archive ends with one block of zeros, where two belong"


class _Member(TarInfo):
    """A header that is checked, and read by an Archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENDED + _LONG and member.size > _MOST_HEADER):
            raise HeaderError(f"a size of {member.size} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        archive = cast(Archive, tarfile)
        try:
            return super().fromtarfile(archive)
        except _NoHeader:
            archive.ending = NO_END
            raise
        except _EndMark:
            following = archive.fileobj.read(_RECORD)
            if following.strip(b"\0"):
                raise archive.bad_header("a block of zeros, and something behind it") from None
            if not following:
                archive.ending = HALF_END
            raise
        except HeaderError as error:
            raise archive.bad_header(str(error)) from None

    def _proc_member(self, tarfile: TarFile) -> Any:
        """tarfile lets a subclass do this. It passes over a damaged record of an extended header, and all behind it."""
        archive = cast(Archive, tarfile)
        file = archive.fileobj
        if self.type in _EXTENDED:
            body = file.read(-(-self.size // _RECORD) * _RECORD)
            if not _are_records(body[: self.size]):
                raise HeaderError("damaged extended header")
            archive.fileobj = cast(Any, _Twice(body, file))
        archive.headers += 1
        try:
            if archive.headers > _MOST_HEADERS:
                raise HeaderError(f"more than {_MOST_HEADERS} headers of one member")
            return cast(Any, super())._proc_member(archive)
        finally:
            archive.headers -= 1
            archive.fileobj = file


def _are_records(body: bytes) -> bool:
    """Whether these are "LENGTH KEYWORD=VALUE\n", one after the other."""
    at = 0
    while at < len(body) and body[at]:
        length = _LENGTH.match(body, at)
        end = at + int(length[1]) if length else at
        if length is None or not length.end() < end <= len(body):
            return False
        if body[end - 1] != ord("\n") or body.find(b"=", length.end(), end) <= length.end():
            return False
        at = end
    return True


class _Twice:
    """A file of which the last piece was read already, and comes once more."""

    def __init__(self, piece: bytes, file: Any) -> None:
        self._piece = piece
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        piece, self._piece = self._piece, b""
        return piece or bytes(self._file.read(size))


class Archive(TarFile):
    """in_place: contents can be read again where they are. ending: what is odd about the end, "" if nothing is.
    headers: of the member that is being read, so far."""

    tarinfo = _Member
    in_place = False
    ending = ""
    headers = 0

    def bad_header(self, why: str) -> TarError:
        # What begins with a bad one is no archive: that is tarfile's to say.
        return ReadError(f"no header stands there ({why})") if self.offset else HeaderError(why)


class _Forward:
    """A stream as tarfile wants a file. layer: how it was compressed, "" if it was not. to_end: whether what follows the
    archive belongs to it."""

    def __init__(self, file: IO[bytes], layer: str, to_end: bool) -> None:
        self._file = file
        self._layer = layer
        self.to_end = to_end
        self._at = 0

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end. Raises CorruptImage, OSError."""
        try:
            data = self._file.read(size)
        except EOFError:
            raise CorruptImage(
                self._layer, "compressed archive", f"it is cut: {self._where()} its end is missing"
            ) from None
        except (OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise CorruptImage(self._layer, "compressed archive", f"{self._where()} {error}") from error
        self._at += len(data)
        return data

    def _where(self) -> str:
        return f"behind {self._at:#x} bytes of what was in it"

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return False

    def seek(self, position: int) -> int:
        if position < self._at:
            raise StreamError("the next header lies further ahead")
        while self._at < position and self.read(min(_BLOCK, position - self._at)):
            pass
        return self._at


class _Again(io.RawIOBase):
    """A stream of which the head was read already."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head or self._file.read(len(buffer))
        data, self._head = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def open_archive(file: IO[bytes]) -> Archive:
    """The archive that begins where `file` stands. Raises NotAnImage, CorruptImage, OSError."""
    stays = file.seekable()
    head = file.read(_HEAD)
    if stays:
        file.seek(-len(head), os.SEEK_CUR)
    else:
        file = io.BufferedReader(_Again(head, file))
    found = next(((layer, opened) for magic, layer, opened in _MAGIC if head.startswith(magic)), None)
    in_place = found is None and stays and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    source: Any = file
    if found is not None:
        source = _Forward(found[1](file), found[0], True)
    elif not in_place:
        source = _Forward(file, "", not stays)
    try:
        archive = Archive(fileobj=source, mode="r", errors="surrogateescape")
    except TarError as error:
        _read_on(source, _MOST_HEADER)
        raise NotAnImage(f"neither a folder nor a tar archive ({error})") from error
    except _BROKEN as error:
        raise CorruptImage("tar archive", "the first member", f"its header makes no sense ({error})", 0) from error
    archive.in_place = in_place
    return archive


def members(archive: Archive) -> Iterator[TarInfo]:
    """One after the other. Raises CorruptImage, OSError."""
    last, at = "the head of the archive", -1
    while True:
        try:
            info = archive.next()
        except _BROKEN as error:
            _read_on(archive.fileobj)
            raise CorruptImage("tar archive", f"what follows {last}", str(error), archive.offset) from error
        if info is None:
            break
        last = repr(info.name)
        if not (at < archive.offset and 0 <= info.size < 1 << 63):
            raise CorruptImage("tar archive", last, f"a size of {info.size} bytes", info.offset)
        at = archive.offset
        cast(Any, archive).members.clear()
        yield info
    _read_on(archive.fileobj)


def _read_on(stream: object, most: int | None = None) -> None:
    """To the end of what belongs to the archive, or so many bytes. Raises CorruptImage: where what was compressed is
    damaged, that is why the headers in it are."""
    if isinstance(stream, _Forward) and stream.to_end:
        end = None if most is None else stream.tell() + most
        while (end is None or stream.tell() < end) and stream.read(_BLOCK):
            pass


def extended_attributes(info: TarInfo) -> Iterator[tuple[bytes, bytes]]:
    """(name, value) of each. Raises CorruptImage."""
    for keyword, text in sorted(info.pax_headers.items()):
        value = text.encode("utf-8", "surrogateescape")
        if keyword.startswith(_SCHILY):
            yield keyword.removeprefix(_SCHILY).encode("utf-8", "surrogateescape"), value
        elif keyword.startswith(_LIBARCHIVE):
            name = urllib.parse.unquote_to_bytes(keyword.removeprefix(_LIBARCHIVE))
            if f"{_SCHILY}{os.fsdecode(name)}" in info.pax_headers:
                continue  # libarchive writes both
            try:
                yield name, base64.b64decode(value + b"=" * (-len(value) % 4))
            except binascii.Error as error:
                why = f"attribute {os.fsdecode(name)!r} is no base64"
                raise CorruptImage("tar archive", repr(info.name), why, info.offset) from error
