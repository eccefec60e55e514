"""What the bytes of an image file are: the virtual disk inside, whatever it is wrapped in.

Order of detection, first hit wins: directory (NetBoot folder, sparse bundle), encryption (then once more on the
plaintext), sparse image, ASIF, UDIF by its trailer, UDIF by its header, NDIF by its resource fork, DiskCopy 4.2, raw disk.
Things that merely look like an image (archives, packages) are named in the error.

Every format is a module of its own with `recognise(source) -> bool` and an `open_...` that returns a Container; it is
imported only when an image needs it.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dmgfs.cache import ChunkCache
from dmgfs.errors import NotAnImage
from dmgfs.source import ByteSource, FileSource

if TYPE_CHECKING:
    from dmgfs.container.checksum import Progress, Verdict

Passphrase = Callable[[], bytes]


class OpenFile(Protocol):
    """How the files of an image are opened: FileSource, or a kind of it."""

    def __call__(self, path: str | os.PathLike[str], *, follow: bool = True) -> FileSource: ...


@dataclass
class Container:
    """An opened image.

    kind: "UDIF", "sparse image", "sparse bundle", "NDIF", "DiskCopy 4.2", "raw". disk: the virtual disk. details: what
    `info` shows, as JSON types; `details["warnings"]` is a list of sentences for the log, `details["encryption"]` is there
    when the image is encrypted, `details["netboot"]` when it lies in a NetBoot folder. files: every file the image
    consists of, the one that was asked for first. verify: checks the image against its own
    checksums, None where the format carries none.
    """

    kind: str
    disk: ByteSource
    details: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    verify: "Callable[[], Iterator[Progress | Verdict]] | None" = None
    closers: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Gives up the files. Reads from `disk` fail afterwards. May be called twice."""
        while self.closers:
            self.closers.pop()()


def open_container(
    path: str | os.PathLike[str],
    *,
    passphrase: Passphrase | None = None,
    cache: ChunkCache[Any],
    open_file: OpenFile = FileSource,
) -> Container:
    """Opens an image file or bundle and finds the virtual disk in it. `cache` keeps decoded chunks and may serve several
    images. `passphrase` is called at most once, and only for an encrypted image. `open_file` opens every file whose bytes
    are read later; bundles read theirs band by band and do not ask it.

    Raises NotAnImage, CorruptImage, Unsupported, PassphraseNeeded, WrongPassphrase, OSError.
    """
    image = Path(path)
    if image.name in ("Info.plist", "Info.bckup", "token") and (image.parent / "bands").is_dir():
        image = image.parent
    if stat.S_ISDIR(os.stat(image).st_mode):
        from dmgfs.container import nbi, sparsebundle

        if nbi.recognise_folder(image):
            return nbi.open_nbi(image, passphrase, cache, open_file)
        return sparsebundle.open_sparsebundle(image, passphrase, cache)
    file = open_file(image)
    try:
        container = open_source(file, path=image, passphrase=passphrase, cache=cache, open_file=open_file)
    except BaseException:
        file.close()
        raise
    container.closers.append(file.close)
    return container


def open_source(
    source: ByteSource,
    *,
    path: Path | None = None,
    passphrase: Passphrase | None = None,
    cache: ChunkCache[Any],
    open_file: OpenFile = FileSource,
) -> Container:
    """The same for an image that is already a byte source, such as a file inside a mounted image. `path` is where its
    sibling files (segments, resource forks) are looked for; None: nowhere. Does not close `source`."""
    if source.size == 0:
        raise NotAnImage("the file is empty")
    # Two short reads decide before the parsers (and the cryptography) of other formats are imported.
    if _head(source, 8) == b"encrcdsa" or _tail(source, 8) == b"cdsaencr":
        from dmgfs.container import encrypted

        plain = encrypted.open_encrypted(source, passphrase, cache)
        container = _open_plain(
            plain, None, cache, open_file
        )  # its siblings, if any, are not the plaintext's segments
        container.details["encryption"] = plain.details
        container.files = [path] if path else []
        return container
    return _open_plain(source, path, cache, open_file)


def _open_plain(source: ByteSource, path: Path | None, cache: ChunkCache[Any], open_file: OpenFile) -> Container:
    from dmgfs.container import raw

    if _head(source, 4) == b"sprs":
        from dmgfs.container import sparseimage

        return sparseimage.open_sparseimage(source, path)
    raw.refuse_asif(source)
    if source.size >= 512 and (_tail(source, 512)[:4] == b"koly" or _head(source, 4) == b"koly"):
        from dmgfs.container import udif

        return udif.open_udif(source, path=path, cache=cache, open_file=open_file)
    from dmgfs.container import diskcopy, ndif

    if ndif.recognise(source, path):
        return ndif.open_ndif(source, path, cache)
    if diskcopy.recognise(source):
        return diskcopy.open_diskcopy(source, path)
    return raw.open_raw(source, path)


def _head(source: ByteSource, length: int) -> bytes:
    return bytes(source.read(0, min(length, source.size)))


def _tail(source: ByteSource, length: int) -> bytes:
    length = min(length, source.size)
    return bytes(source.read(source.size - length, length))
