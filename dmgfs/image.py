"""An image as a whole: container, partitions, volumes. This is the door for programs (`dmgfs.open_image`), verbs and the
mount alike.

Rules that hold here:
- the image is opened read-only and its path once; everything is closed by `Image.close`;
- volumes are found by their signatures; a partition that cannot be used is named together with what to do instead;
- what is opened is kept: the same partition gives the same Volume.
"""

import errno
import importlib.util
import os
import stat
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, OpenFile, open_container, open_source
from dmgfs.errors import CorruptImage, DmgError, NotAnImage, Unsupported, WhichPartition
from dmgfs.partitions import MOST_PROBED, Partition, read_map, signatures
from dmgfs.partitions.signatures import Found, probe
from dmgfs.source import Buffer, ByteSource, FileSource, SliceSource
from dmgfs.volume import ROOT_FOLDER, Volume

if TYPE_CHECKING:
    from dmgfs.remote import RemoteSource
    from dmgfs.remote.settings import Settings

MiB = 1 << 20

Passphrase = bytes | Callable[[], bytes] | None
"""The passphrase, or what asks for it when an image turns out to be encrypted."""

_CONVERT = "`dmgfs convert --to raw` writes the disk out for it"

_ADVICE = {
    signatures.APFS: f"apfs-fuse or the linux-apfs driver read it; {_CONVERT}",
    signatures.CORE_STORAGE: f"fvdemount of libfvde opens Core Storage; {_CONVERT}",
    signatures.HFS: f"hfsutils or `mount -t hfs` read the old HFS; {_CONVERT}",
    signatures.MFS: f"an emulator or CiderPress II reads the Macintosh File System of 1984; {_CONVERT}",
    signatures.FAT: f"`mount -t vfat` or mtools read FAT; {_CONVERT}",
    signatures.EXFAT: f"`mount -t exfat` reads it; {_CONVERT}",
    signatures.NTFS: f"`mount -t ntfs3` reads it; {_CONVERT}",
    signatures.ISO_9660: f"`mount -t iso9660 -o loop` reads it; {_CONVERT}",
    signatures.UDF: f"`mount -t udf -o loop` reads it; {_CONVERT}",
    signatures.UFS: f"`mount -t ufs -o ro` reads it; {_CONVERT}",
    signatures.EXT: f"`mount -t ext4 -o loop` reads it; {_CONVERT}",
    signatures.PRODOS: f"CiderPress II reads it; {_CONVERT}",
}
"""Volumes that are recognised and not read, and what reads them."""

_DAMAGED = (signatures.WRAPPER, signatures.UNREADABLE, signatures.ABSENT)


def _mountable() -> frozenset[str]:
    kinds = {signatures.HFS_PLUS, signatures.HFSX}
    if importlib.util.find_spec("dmgfs.hfs.volume") is not None:
        kinds.add(signatures.HFS)
    return frozenset(kinds)


class Image:
    """An open image. Use `open_image`; close it or use it as a context manager.

    path: as given, a URL without what is secret in it. remote: the object behind the URL, None for files. container: kind,
    disk and facts of the outermost layer that holds the disk. disk: the virtual disk.
    scheme: "APM", "GPT", "MBR" or "none". partitions: as the map lists them. cache: decoded chunks of the container and
    of compressed files; node_cache: B-tree nodes.
    """

    def __init__(
        self,
        path: str,
        container: Container,
        cache: ChunkCache[Buffer],
        node_cache_bytes: int,
        replay: bool,
        outer: "Image | None" = None,
        remote: "RemoteSource | None" = None,
    ) -> None:
        self.path = path
        self.remote = remote
        self.container = container
        self.cache = cache
        self.outer = outer
        self.disk: ByteSource = container.disk
        self._node_cache_bytes = node_cache_bytes
        self._replay = replay
        self._mountable = _mountable()
        self._found: dict[int, Found] = {}
        self._volumes: dict[int, Volume] = {}
        self.map = read_map(self.disk)

    def __enter__(self) -> "Image":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files. Volumes and sources of the image must not be read afterwards. May be called twice."""
        self.container.close()
        if self.outer is not None:
            self.outer.close()

    @property
    def remote_below(self) -> "RemoteSource | None":
        """The object that all bytes come from in the end, for an image in an image as well."""
        return self.remote if self.outer is None else self.outer.remote_below

    @property
    def scheme(self) -> str:
        return self.map.scheme

    @property
    def partitions(self) -> Sequence[Partition]:
        return self.map.partitions

    @property
    def warnings(self) -> list[str]:
        """What is odd about container and partition map, in plain sentences."""
        of_partitions = [warning for partition in self.partitions for warning in partition.warnings]
        return [*self.container.details.get("warnings", ()), *self.map.warnings, *of_partitions]

    def found(self, partition: Partition) -> Found:
        """What stands on the partition by its own signature. Damage is an answer; raises OSError where the disk fails."""
        found = self._found.get(partition.index)
        if found is None:
            found = probe(self.disk, partition.start, partition.length)
            self._found[partition.index] = found
        return found

    def mountable(self, partition: Partition) -> bool:
        """Whether `volume` can open what stands there."""
        return partition.may_hold_volume and self.found(partition).kind in self._mountable

    def choose(self, wanted: int | str | None = None) -> Partition:
        """The partition that is meant: by index, by name (of the partition, then of the volume), or without a word the
        only one that can be opened. Recovery and boot partitions count only where there is no other.

        Raises WhichPartition (several could be meant, or none is called so), Unsupported (the volume is of a kind that
        is not read), CorruptImage (it is damaged), NotAnImage (there is no volume).
        """
        if wanted is not None:
            return self._usable(self._named(wanted))
        looked_at = [one for one in self.partitions if one.may_hold_volume][:MOST_PROBED]
        candidates = [one for one in looked_at if self.mountable(one)]
        first = [one for one in candidates if not one.second_choice] or candidates
        if len(first) > 1:
            raise WhichPartition(
                f"{len(first)} partitions hold volumes; choose one with --partition: {self._list(first)}"
            )
        if first:
            return first[0]
        raise self._why_none()

    def volume(self, partition: int | str | None = None) -> Volume:
        """The volume on the partition that `choose` takes. Raises what `choose` raises, and CorruptImage or Unsupported
        where the volume cannot be opened."""
        return self.volume_on(self.choose(partition))

    def volume_on(self, partition: Partition) -> Volume:
        """The volume on this partition, opened once. Raises CorruptImage or Unsupported."""
        volume = self._volumes.get(partition.index)
        if volume is None:
            volume = self._open_volume(self._usable(partition))
            self._volumes[partition.index] = volume
        return volume

    def part(self, wanted: int | str) -> ByteSource:
        """The bytes of a partition, whatever stands on it. Raises WhichPartition."""
        partition = self._named(wanted)
        return SliceSource(self.disk, partition.start, partition.length)

    def source(self, partition: Partition) -> ByteSource:
        """The bytes of the volume on the partition (of the inner one, if it is wrapped)."""
        found = self.found(partition)
        if found.start == 0 and found.length == self.disk.size:
            return self.disk
        return SliceSource(self.disk, found.start, found.length)

    def _open_volume(self, partition: Partition) -> Volume:
        if self.found(partition).kind == signatures.HFS:
            from dmgfs.hfs.volume import open_volume as open_hfs

            return open_hfs(self.source(partition), node_cache_bytes=self._node_cache_bytes)
        from dmgfs.hfsplus.volume import open_volume

        return open_volume(
            self.source(partition), cache=self.cache, node_cache_bytes=self._node_cache_bytes, replay=self._replay
        )

    def _named(self, wanted: int | str) -> Partition:
        text = str(wanted)
        tests: list[Callable[[Partition], bool]] = [
            lambda one: str(one.index) == text,
            lambda one: one.name == text,
            lambda one: one.name.casefold() == text.casefold(),
            lambda one: self.mountable(one) and self.volume_on(one).info.name == text,
        ]
        for test in tests:
            matches = [one for one in self.partitions if test(one)]
            if len(matches) > 1:
                raise WhichPartition(f"several partitions are called {text!r}: {self._list(matches)}")
            if matches:
                return matches[0]
        raise WhichPartition(f"there is no partition {text!r}; there are: {self._list(self.partitions)}")

    def _usable(self, partition: Partition) -> Partition:
        if self.found(partition).kind in self._mountable:
            return partition
        raise self._why_not(partition)

    def _why_not(self, partition: Partition) -> DmgError:
        """The error that says why this partition cannot be opened."""
        found = self.found(partition)
        where = "the disk" if partition.index == 0 else f"partition {partition.index}"
        if partition.type:
            where += f" ({partition.type})"
        if found.kind in _ADVICE:
            return Unsupported(f"{found.kind}, which stands on {where},", _ADVICE[found.kind])
        if found.kind in _DAMAGED:
            return CorruptImage(f"{self.scheme} partition map", where, f"{found.kind}: {found.problem}", found.start)
        return NotAnImage(f"no volume on {where}: {found.kind}, {found.problem}")

    def _why_none(self) -> DmgError:
        """The error for an image without any volume that can be opened: it speaks of the partition that comes closest."""

        def distance(partition: Partition) -> tuple[bool, int]:
            kind = self.found(partition).kind
            return partition.second_choice, 0 if kind in _ADVICE else 1 if kind in _DAMAGED else 2

        could = [one for one in self.partitions if not one.type.startswith(("Apple_partition_map", "Apple_Free"))]
        if not could:
            return NotAnImage(f"the {self.scheme} partition map lists no volume")
        return self._why_not(min(could[:MOST_PROBED], key=distance))

    def _list(self, partitions: Sequence[Partition]) -> str:
        return "; ".join(self.describe(one) for one in partitions[:MOST_PROBED])

    def describe(self, partition: Partition) -> str:
        """One partition in a few words: `2 Apple_HFS "disk image" 1.8 MiB HFS+`."""
        name = f' "{partition.name}"' if partition.name else ""
        kind = self.found(partition).kind if partition.may_hold_volume else "no volume"
        return f"{partition.index} {partition.type or 'no map'}{name} {partition.length / MiB:.1f} MiB {kind}"


def open_image(
    path: str | os.PathLike[str],
    *,
    passphrase: Passphrase = None,
    cache_bytes: int = 64 * MiB,
    node_cache_bytes: int = 16 * MiB,
    replay: bool = True,
    depth: int = 2,
    open_file: OpenFile = FileSource,
    network: "Settings | None" = None,
) -> Image:
    """Opens a disk image: UDIF, sparse, encrypted, raw, with any partition map or none. `path` may be a URL.

    passphrase: for encrypted images, or a function that is called when one is needed. cache_bytes, node_cache_bytes:
    budgets for decoded data and for B-tree nodes. replay: a dirty journal is replayed in memory. depth: images in one
    another that `outer.dmg//inner.dmg` may name. open_file: opens the files that the image consists of. network: how a URL
    is read; unless told, as the defaults of `Settings` say.

    Raises NotAnImage, CorruptImage, Unsupported, PassphraseNeeded, WrongPassphrase, OSError (the file cannot be read, the
    server not reached).
    """
    first, *inner = _chain(os.fspath(path))
    if len(inner) >= depth:
        raise Unsupported(f"an image {len(inner)} images deep", f"at most {depth} may stand in one another")
    ask = (lambda: passphrase) if isinstance(passphrase, bytes) else passphrase
    cache: ChunkCache[Buffer] = ChunkCache(cache_bytes)

    def opened(name: str, container: Container, outer: Image | None, remote: "RemoteSource | None" = None) -> Image:
        try:
            return Image(name, container, cache, node_cache_bytes, replay, outer, remote)
        except BaseException:
            container.close()
            raise

    if _is_url(first):
        container, remote = _over_network(first, network, ask, cache)
        image = opened(remote.url, container, None, remote)
    else:
        image = opened(first, open_container(first, passphrase=ask, cache=cache, open_file=open_file), None)
    try:
        for name in inner:
            source = _file_inside(image, name)
            container = open_source(source, passphrase=ask, cache=cache)
            image = opened(f"{image.path}//{name}", container, image)
    except BaseException:
        image.close()
        raise
    return image


def _over_network(
    url: str, network: "Settings | None", ask: Callable[[], bytes] | None, cache: ChunkCache[Buffer]
) -> "tuple[Container, RemoteSource]":
    from dmgfs.remote import Settings, open_remote

    remote = open_remote(url, network or Settings())
    try:
        container = open_source(remote, passphrase=ask, cache=cache)
    except BaseException:
        remote.close()
        raise
    container.closers.append(remote.close)
    return container, remote


def _is_url(path: str) -> bool:
    if "://" not in path or os.path.exists(path):
        return False
    from dmgfs.remote.address import is_url

    return is_url(path)


def _chain(path: str) -> list[str]:
    """`outer.dmg//folder/inner.dmg` as its parts. A path that exists as it stands is one part."""
    if not os.path.exists(path):
        if _is_url(path):
            from dmgfs.remote.address import split

            return split(path)
        at = path.find("//")
        while at > 0:
            if os.path.exists(path[:at]):
                return [path[:at], *(part for part in path[at:].split("//") if part.strip("/"))]
            at = path.find("//", at + 2)
    return [path]


def _file_inside(image: Image, path: str) -> ByteSource:
    """The bytes of a file on the image's volume; `path` as Linux shows it. Links on the way are not followed."""
    volume = image.volume()
    node = volume.node(ROOT_FOLDER)
    for part in path.strip("/").split("/"):
        # What Linux shows as : is stored as / and the other way round.
        child = volume.find(node.cnid, part.replace(":", "/")) if stat.S_ISDIR(node.mode) else None
        if child is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{image.path}//{path}")
        node = child
    if node.broken is not None:
        raise CorruptImage("volume", path, node.broken)
    if stat.S_ISDIR(node.mode):
        raise Unsupported("a folder (sparse bundle) inside an image", "copy it out with `dmgfs extract` first")
    if not stat.S_ISREG(node.mode):
        raise NotAnImage(f"{path} in {image.path} is no regular file")
    return volume.data(node)
