"""Which files a list names: a list of paths, or a playlist that a mount recorded, with its image."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmgfs.gathering.order import Path

_MOST_BYTES = 64 << 20


def paths_of(file: str, image: str | None) -> "list[Path]":
    """image: the one with which a playlist was recorded; a list of paths needs none. Raises WrongUsage, DmgError,
    OSError."""
    from dmgfs.cli.options import WrongUsage
    from dmgfs.gathering.order import named
    from dmgfs.playlist import MOST_BYTES, from_text

    with open(file, "rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if not data.startswith(b"dmgfs playlist "):
        if image is not None:
            raise WrongUsage(f"{file} is a list of paths and needs no --playlist-image")
        if len(data) > _MOST_BYTES:
            raise WrongUsage(f"{file} is no list of paths: it has more than {_MOST_BYTES >> 20} MiB")
        return list(named(data.splitlines()))
    playlist = from_text(data[: MOST_BYTES + 1])
    if not playlist.files:
        raise WrongUsage(f"{file} names no files: record it anew, with `mount --playlist record=FILE`")
    if image is None:
        raise WrongUsage(
            f"{file} numbers files of the image that it was recorded with: name it with --playlist-image"
        )
    return _of_image(file, image, playlist.image, playlist.disk, playlist.files)


def _of_image(file: str, path: str, identity: str, size: int, files: tuple[int, ...]) -> "list[Path]":
    from dmgfs.cli.options import WrongUsage
    from dmgfs.gathering.order import by_number
    from dmgfs.image import open_image
    from dmgfs.playlist import identity_of

    with open_image(path) as image:
        if (identity_of(image.container), image.disk.size) != (identity, size):
            raise WrongUsage(f"{file} was recorded with another image than {path}")
        return by_number(image.volume(), files)
