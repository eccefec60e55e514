"""What tells one image from another: a shadow file is bound to it, because its changes make no sense over anything else.

Rule: nothing here depends on where the image lies or what it is called, and nothing that a reader does changes it.
"""

import hashlib
import os

from dmgfs.image import Image
from dmgfs.volume import Volume

_END = 4096
"""Bytes from both ends of the file. A UDIF's trailer (ids, checksums, size) is the last 512, of old ones the first."""


def identity(image: Image, volume: Volume) -> dict[str, str | int | None]:
    """Of the volume: its id, dates and size; of the file: its size and a checksum of both ends. For a bundle of files only
    what the volume says. Raises OSError."""
    info = volume.info
    known: dict[str, str | int | None] = {
        "volume": info.kind,
        "volume id": info.id,
        "volume created": info.created,
        "volume modified": info.modified,
        "volume blocks": info.total_blocks,
        "block size": info.block_size,
    }
    return known | _of_file(image)


def disk_identity(image: Image) -> dict[str, str | int | None]:
    """The same for a shadow of blocks, which is never taken for one of files, nor the other way. Raises OSError."""
    return {"disk size": image.disk.size, **_of_file(image)}


def _of_file(image: Image) -> dict[str, str | int | None]:
    known: dict[str, str | int | None] = {}
    remote = image.remote_below
    if remote is not None:
        size = remote.size
        end = min(_END, size)
        ends = bytes(remote.read(0, end)) + bytes(remote.read(max(0, size - _END), end))
        return {"image size": size, "image ends": hashlib.sha256(ends).hexdigest()}
    path = image.path if os.path.exists(image.path) else image.path.partition("//")[0]
    if os.path.isfile(path):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            ends = file.read(_END)
            file.seek(max(0, size - _END))
            ends += file.read(_END)
        known |= {"image size": size, "image ends": hashlib.sha256(ends).hexdigest()}
    return known
