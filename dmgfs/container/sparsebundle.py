"""Sparse bundle: a folder with `Info.plist`, `bands/` with one file per band of the disk, named by its number in
hexadecimal, and `token`, empty or the header of an encrypted image (`dmgfs.container.encrypted`).

Rules that hold here (threats.md U26-U28): names of bands are computed, never listed; every file of the bundle is opened
without following links, must be a regular file, and is closed after each read, so that a bundle of a hundred thousand
bands needs one descriptor; a band that changed since it was first read is EIO, as is one that appeared. A missing band,
or the part that a short one lacks, is zeros (of plaintext). In an encrypted bundle the block numbers start again at 0 in
every band.
"""

import errno
import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, Passphrase
from dmgfs.container.blockcipher import AES_BLOCK, BlockCipher
from dmgfs.container.encrypted import unlock
from dmgfs.container.plist import parse_plist
from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
from dmgfs.source import Buffer, Cold, Load, MemorySource, check_range, may_block

LAYER = "sparse bundle"
BUNDLE_TYPE = "com.apple.diskimage.sparsebundle"
SECTOR = 512
MOST_BAND_SIZE = 1 << 30
MOST_PLIST_BYTES = 1 << 20
MOST_TOKEN_BYTES = 16 << 20
_PLISTS = ("Info.plist", "Info.bckup")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def bundle_folder(path: str | os.PathLike[str]) -> Path | None:
    """The bundle that `path` means: a folder with a property list or bands in it, or a file directly inside one."""
    folder = Path(path)
    if not folder.is_dir():
        if folder.name not in (*_PLISTS, "token"):
            return None
        folder = folder.parent
        return folder if (folder / "bands").is_dir() else None
    known = (folder / "bands").is_dir() or any((folder / name).is_file() for name in _PLISTS)
    return folder if known else None


def recognise_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is, or lies directly in, a sparse bundle's folder."""
    return bundle_folder(path) is not None


def open_sparsebundle(
    path: str | os.PathLike[str], passphrase: Passphrase | None, cache: ChunkCache[Buffer]
) -> Container:
    """The disk inside the bundle at `path`. Raises NotAnImage, CorruptImage, Unsupported, OSError, and as
    `encrypted.open_encrypted` if the bundle is encrypted."""
    folder = bundle_folder(path)
    if folder is None:
        raise NotAnImage("no sparse bundle: there is neither Info.plist nor bands")
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        band_size, size = _geometry(top)
        token = _read_small(top, "token", MOST_TOKEN_BYTES) or b""
        unlocked = unlock(MemorySource(token), passphrase, token=True) if token else None
        if unlocked is not None and band_size % unlocked.cipher.block_size:
            why = f"{band_size} is no multiple of the encryption's block size {unlocked.cipher.block_size}"
            raise CorruptImage(LAYER, "band-size", why)
        bands = -(-size // band_size)
        details: dict[str, object] = {"size": size, "band_size": band_size, "bands": bands, "warnings": []}
        if unlocked is not None:
            details["encryption"] = unlocked.details
        cipher = unlocked.cipher if unlocked else None
        disk = SparseBundleSource(_open_bands(top), size, band_size, cipher, cache)
    finally:
        os.close(top)
    return Container("sparse bundle", disk, details, [folder], closers=[disk.close])


def _open_bands(top: int) -> int:
    try:
        return os.open("bands", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=top)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise CorruptImage(LAYER, "bands", "no such folder") from None
        raise


def _open_regular(folder: int, name: str) -> tuple[int, os.stat_result] | None:
    """A descriptor and its status; None if there is no such file. Raises CorruptImage for anything but a regular file."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise CorruptImage(LAYER, name, "not a regular file") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise CorruptImage(LAYER, name, "not a regular file")
    return descriptor, status


def _read_small(folder: int, name: str, limit: int) -> bytes | None:
    """A whole file of at most `limit` bytes; None if there is none."""
    opened = _open_regular(folder, name)
    if opened is None:
        return None
    descriptor, status = opened
    try:
        if status.st_size > limit:
            raise CorruptImage(LAYER, name, f"{status.st_size} bytes long, at most {limit} are read")
        return _read_at(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            raise OSError(errno.EIO, "a file of the sparse bundle became shorter while it was read")
        data += more
    return data


def _geometry(top: int) -> tuple[int, int]:
    """(bytes a band, bytes of the disk) from Info.plist, or from its backup where that is missing or damaged."""
    first: CorruptImage | None = None
    for name in _PLISTS:
        data = _read_small(top, name, MOST_PLIST_BYTES)
        if data is None:
            continue
        try:
            return _geometry_of(parse_plist(data, LAYER, name, MOST_PLIST_BYTES), name)
        except CorruptImage as error:
            first = first or error
    raise first or CorruptImage(LAYER, "Info.plist", "no such file")


def _geometry_of(info: dict[str, object], name: str) -> tuple[int, int]:
    kind = info.get("diskimage-bundle-type", BUNDLE_TYPE)
    if kind != BUNDLE_TYPE:
        raise Unsupported(
            f"disk image bundle type {kind!r}" if isinstance(kind, str) else "this disk image bundle type"
        )
    version = info.get("bundle-backingstore-version", 1)
    if version != 1:
        raise Unsupported(
            f"sparse bundle version {version}" if isinstance(version, int) else "this sparse bundle version"
        )
    band_size = _integer(info, "band-size", name)
    size = _integer(info, "size", name)
    if not SECTOR <= band_size <= MOST_BAND_SIZE or band_size % SECTOR:
        why = f"band-size {_short(band_size)} is no multiple of {SECTOR} from {SECTOR} to {MOST_BAND_SIZE}"
        raise CorruptImage(LAYER, name, why)
    if not 0 < size < 1 << 63:
        raise CorruptImage(LAYER, name, f"size {_short(size)} is not from 1 to 2^63-1")
    return band_size, size


def _integer(info: dict[str, object], key: str, name: str) -> int:
    value = info.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CorruptImage(LAYER, name, f"{key} is missing or no integer")
    return value


def _short(number: int) -> str:
    """A number for a message: property lists may hold integers of thousands of digits."""
    return str(number) if abs(number) < 1 << 128 else f"of {number.bit_length()} bits"


class SparseBundleSource:
    """The disk: `size` bytes out of the band files in the folder `bands` (a descriptor, which this object owns).

    As in `DecryptedSource`, a thread that may wait reads what it asked for; the thread that must not is served from
    `cache`, in units that never reach over the end of a band.
    """

    UNIT = 128 << 10

    def __init__(
        self,
        bands: int,
        size: int,
        band_size: int,
        cipher: BlockCipher | None,
        cache: ChunkCache[Buffer],
    ) -> None:
        self.size = size
        self.band_size = band_size
        self._folder = bands
        self._folder_time = os.fstat(bands).st_mtime_ns
        self._cipher = cipher
        self._cache = cache
        self._key = object()
        block = cipher.block_size if cipher else SECTOR
        self._unit = min(max(self.UNIT // block, 1) * block, band_size)
        self._seen: dict[int, tuple[int, int, int]] = {}  # band → inode, size, time: what must not change

    def close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _pieces(self, offset: int, length: int, step: int) -> list[tuple[int, int, int]]:
        """(band, offset in it, length), none reaching over a multiple of `step` bytes from the band's start."""
        pieces = []
        while length > 0:
            band, start = divmod(offset, self.band_size)
            size = min(length, step - start % step, self.band_size - start)
            pieces.append((band, start, size))
            offset += size
            length -= size
        return pieces

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        if may_block():
            parts = [self._read_band(*piece) for piece in self._pieces(offset, length, self.band_size)]
            return parts[0] if len(parts) == 1 else b"".join(parts)
        views = []
        try:
            for band, start, size in self._pieces(offset, length, self._unit):
                unit, skip = divmod(start, self._unit)
                data = self._cache.get((self._key, band, unit), partial(self._read_unit, band, unit))
                views.append(memoryview(data)[skip : skip + size])
        except Cold:
            raise Cold(self.cold(offset, length)) from None
        return views[0] if len(views) == 1 else b"".join(views)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        units = [(band, start // self._unit) for band, start, _ in self._pieces(offset, length, self._unit)]
        return tuple(
            load
            for band, unit in units
            for load in self._cache.load_for((self._key, band, unit), partial(self._read_unit, band, unit))
        )

    def _read_unit(self, band: int, unit: int) -> bytes:
        start = unit * self._unit
        return self._read_band(band, start, min(self._unit, self.band_size - start))

    def _read_band(self, band: int, start: int, length: int) -> bytes:
        """Bytes of one band, zeros where the file has none."""
        opened = _open_regular(self._folder, f"{band:x}")
        if opened is None:
            if os.fstat(self._folder).st_mtime_ns != self._folder_time:
                raise OSError(errno.EIO, "bands of the sparse bundle came or went while it was in use")
            return bytes(length)
        descriptor, status = opened
        try:
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._seen.setdefault(band, identity) != identity:
                raise OSError(errno.EIO, f"band {band:x} of the sparse bundle changed while it was in use")
            stored = min(status.st_size, self.band_size)
            data = self._stored(descriptor, stored, start, length)
        finally:
            os.close(descriptor)
        return data if len(data) == length else data + bytes(length - len(data))

    def _stored(self, descriptor: int, stored: int, start: int, length: int) -> bytes:
        """What of the range the first `stored` bytes of the band hold."""
        if self._cipher is None:
            return _read_at(descriptor, start, max(0, min(length, stored - start)))
        block = self._cipher.block_size
        first, skip = divmod(start, block)
        end = min(-(-(start + length) // block) * block, stored // AES_BLOCK * AES_BLOCK)
        if end <= first * block:
            return b""
        plain = self._cipher.decrypt(first, _read_at(descriptor, first * block, end - first * block))
        return plain[skip : skip + length]
