"""NetBoot folder (`NAME.nbi`): NBImageInfo.plist says which of the files beside it is the root image and which files a
machine loads first. The root image is opened as any other image; what else the list names is checked and reported.

Rules that hold here: the list is untrusted, so a file it names must lie inside the folder once all links are followed and
be a regular file (or, for the image, a sparse bundle); images on a server (`nfs:…`, `http://…`) are named, never fetched.
A missing boot file is a warning, a missing root image an error. Keys as Apple's NetBoot server reads them.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, OpenFile, Passphrase, open_container, sparsebundle
from dmgfs.container.plist import parse_plist
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.source import Buffer, FileSource

LAYER = "NetBoot folder"
INFO = "NBImageInfo.plist"
MOST_PLIST_BYTES = 1 << 20
_STRINGS = (
    "Name",
    "Description",
    "Type",
    "Language",
    "osVersion",
    "RootPath",
    "BootFile",
    "SharedImage",
    "PrivateImage",
)
_FLAGS = ("IsInstall", "IsEnabled", "IsDefault", "SupportsDiskless")
_ARCHITECTURES = ("ppc", "i386", "x86_64")


@dataclass(frozen=True, slots=True)
class NetBootFolder:
    """root_image: the image to mount. details: JSON-able, as `info` shows it. warnings: sentences."""

    root_image: Path
    details: dict[str, object]
    warnings: list[str]


def recognise_folder(path: str | os.PathLike[str]) -> bool:
    """Whether the folder holds an NBImageInfo.plist."""
    return (Path(path) / INFO).is_file()


def open_nbi(
    path: str | os.PathLike[str],
    passphrase: Passphrase | None,
    cache: ChunkCache[Buffer],
    open_file: OpenFile = FileSource,
) -> Container:
    """The root image of a NetBoot folder. Raises as read_folder and open_container."""
    folder = read_folder(path)
    container = open_container(folder.root_image, passphrase=passphrase, cache=cache, open_file=open_file)
    container.details["netboot"] = folder.details
    container.details.setdefault("warnings", []).extend(folder.warnings)
    return container


def read_folder(path: str | os.PathLike[str]) -> NetBootFolder:
    """What NBImageInfo.plist says, checked against the folder.

    Raises CorruptImage (damaged list, root image missing, or outside the folder), Unsupported (image on a server), OSError.
    """
    folder = Path(path)
    info = parse_plist(_read_info(folder), LAYER, INFO, MOST_PLIST_BYTES)
    strings = {key: value for key in _STRINGS if isinstance(value := info.get(key), str)}
    details: dict[str, object] = dict(strings)
    details.update({key: value for key in _FLAGS if isinstance(value := info.get(key), bool)})
    for key in ("Index", "Kind"):
        value = info.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
            details[key] = value
    architectures = _architectures(info)
    if architectures:
        details["Architectures"] = architectures
    files, warnings = _boot_files(folder, strings, architectures)
    details["files"] = files
    return NetBootFolder(_root_image(folder, strings), details, warnings)


def _read_info(folder: Path) -> bytes:
    source = FileSource(folder / INFO)
    try:
        if source.size > MOST_PLIST_BYTES:
            raise CorruptImage(LAYER, INFO, f"{source.size} bytes long, at most {MOST_PLIST_BYTES} are read")
        return bytes(source.read(0, source.size))
    finally:
        source.close()


def _architectures(info: dict[str, object]) -> list[str]:
    """The known ones of the list; a folder without the key is for PowerPC, its boot file beside the list."""
    value = info.get("Architectures")
    return [name for name in _ARCHITECTURES if name in value] if isinstance(value, list) else []


def _root_image(folder: Path, strings: dict[str, str]) -> Path:
    kind = strings.get("Type", "NFS")
    if kind == "BootFileOnly":
        raise Unsupported("a NetBoot folder of type BootFileOnly, which has no disk image,")
    key = "SharedImage" if kind == "Classic" else "RootPath"
    name = strings.get(key)
    if not name:
        raise CorruptImage(LAYER, INFO, f"{key} is missing or no string")
    inside = _inside(folder, name)
    if inside is not None and _usable_image(inside):
        return inside
    scheme, colon, _ = name.partition(":")
    if colon and scheme in ("nfs", "http", "https", "afp"):
        raise Unsupported(f"a root image on a server ({name!r})", "copy it here and mount the copy")
    why = f"{key} {name!r} is no image in this folder" if inside is None else f"{key} {name!r} is no file"
    raise CorruptImage(LAYER, INFO, why)


def _usable_image(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and not recognise_folder(path) and sparsebundle.recognise_bundle(path))


def _inside(folder: Path, name: str) -> Path | None:
    """The file that `name` means, links followed; None unless it exists and lies in the folder."""
    if "\0" in name:
        return None
    try:
        base = folder.resolve(strict=True)
        path = (base / name).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of symbolic links, before Python 3.13
        return None
    return path if path != base and path.is_relative_to(base) else None


def _boot_files(
    folder: Path, strings: dict[str, str], architectures: list[str]
) -> tuple[list[dict[str, object]], list[str]]:
    """({role, path, size or None where it is missing} for every file that the list implies, warnings)."""
    wanted: list[tuple[str, str, bool]] = []  # role, path, whether its absence is worth a warning
    boot_file = strings.get("BootFile", "booter")
    for architecture in architectures or [""]:
        wanted.append(("boot file", os.path.join(architecture, boot_file), True))
        if architecture == "i386":
            wanted.append(("kernel", "i386/x86_64/kernelcache", False))
            wanted.append(("supported machines", "i386/PlatformSupport.plist", False))
        elif architecture != "x86_64":
            wanted.append(("kernel", os.path.join(architecture, "mach.macosx"), False))
            wanted.append(("drivers", os.path.join(architecture, "mach.macosx.mkext"), False))
    if "PrivateImage" in strings:
        wanted.append(("private image", strings["PrivateImage"], True))
    files: list[dict[str, object]] = []
    warnings = []
    for role, name, needed in wanted:
        size = _regular_size(folder, name)
        if size is None and not needed:
            continue
        files.append({"role": role, "path": name, "size": size})
        if size is None:
            warnings.append(f"NetBoot folder: the {role} {name!r} is missing")
    return files, warnings


def _regular_size(folder: Path, name: str) -> int | None:
    path = _inside(folder, name)
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
