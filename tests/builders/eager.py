"""A store that packs whatever it can at every commit, and a codec that packs everything."""

import random
import zlib

from overlay.change import Change
from overlay.squeezed import GROUP_BYTES, Codec, SqueezedStore
from overlay.vfs import Buffer


class Pretended:
    """Keeps the bytes aside, and says that it has packed them into 1 to 13 pages."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._kept: dict[bytes, bytes] = {}
        self.unpacked = 0

    def codec(self) -> Codec:
        return Codec("pretended", self.pack, self.unpack)

    def pack(self, data: Buffer) -> bytes:
        assert len(data) == GROUP_BYTES
        token = len(self._kept).to_bytes(8, "big") + self._random.randbytes(self._random.randrange(13 * 4096 - 8))
        self._kept[token] = bytes(data)
        return token

    def unpack(self, data: Buffer, size: int) -> bytes:
        assert size == GROUP_BYTES
        self.unpacked += 1
        return self._kept[bytes(data)]


ZLIB = Codec("zlib", lambda data: zlib.compress(data, 1), lambda data, size: zlib.decompress(data, bufsize=size))


def squeeze(store: SqueezedStore, age: int = 0) -> int:
    """Packs all that is old enough; how many groups."""
    done = 0
    while store.repack(64):
        pass
    while jobs := store.candidates(64, age):
        packed = [store.install(job, store.pack(job)) for job in jobs]
        done += sum(packed)
        if age and not any(packed):
            break
    return done


class EagerStore(SqueezedStore):
    """Before every commit everything is packed that can be."""

    def __init__(self, budget: int, seed: int = 0, codec: Codec | None = None) -> None:
        super().__init__(budget, codec or Pretended(seed).codec(), clock=lambda: 0)

    def commit(self, change: Change) -> None:
        squeeze(self)
        super().commit(change)
