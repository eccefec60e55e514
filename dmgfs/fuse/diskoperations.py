"""The FUSE requests of an attached disk with partitions.

Rule: where something may be written and files overlap, the kernel keeps no bytes of them (direct_io): it would not know
that a write to a partition changes the disk. Whoever uses them has a cache of his own: a loop device, QEMU.
"""

from pyfuse3 import FileInfo

from dmgfs.fuse.operations import DmgOperations


class DiskOperations(DmgOperations):
    """`overlay` is a DiskTree."""

    def _handle(self, ino: int) -> FileInfo:
        info = super()._handle(ino)
        if not self._frozen:
            info.direct_io = True
            info.keep_cache = False
        return info
