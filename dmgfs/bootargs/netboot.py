"""Root paths as Darwin's netboot and imageboot take them, all forms:

    file:///PATH                  an image on this machine; percent escapes
    nfs:IP:FOLDER[:IMAGE]         an exported folder as the root, or an image in it
    IP:HOST:FOLDER[:IMAGE]        the same, as BOOTP servers wrote it; HOST is for people
    http://… https://…            an image on a web server (http: means it, whatever follows, as in XNU)

A colon that belongs to a name is written \\: (and is no escape before anything else, as in XNU).

Rules that hold here:
- text in, values out; nothing is opened or resolved;
- an image inside an image is a second path; more than two are refused, as by imageboot;
- a path that leads out of its folder (..) is refused: it came over the network.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dmgfs.bootargs.rootpath import file_path
from dmgfs.errors import WrongBootArgument

MOST_NESTED = 2
LONGEST = 4096

_COLON = re.compile(r"(?<!\\):")
_URL = re.compile(r"https?:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RootPath:
    """kind: "file", "nfs" or "http". server: the IP address of an NFS server. host: its name, "" where there is none.
    folder: what it exports. image: the path of the image, in the folder if there is one; a URL for "http"; "": the folder
    itself is the root."""

    kind: str
    server: str = ""
    host: str = ""
    folder: str = ""
    image: str = ""


def parse_root_path(text: str) -> RootPath:
    """Raises WrongBootArgument with the form that is nearest."""
    if not text or len(text) > LONGEST:
        raise WrongBootArgument(f"a root path has 1 to {LONGEST} characters")
    if "\0" in text or "\n" in text:
        raise WrongBootArgument(f"{text!r}: no root path holds a zero byte or an end of line")
    if _URL.match(text):
        return RootPath("http", image=_url(text))
    if text.startswith(("file:", "/")):
        return RootPath("file", image=file_path(text))
    parts = [part.replace("\\:", ":") for part in _COLON.split(text)]
    if parts[0] == "nfs":
        return _export(text, parts[1:], named=False)
    if _is_address(parts[0]):
        return _export(text, parts, named=True)
    raise WrongBootArgument(f"{text}: write file:///PATH, nfs:IP:FOLDER[:IMAGE], IP:HOST:FOLDER[:IMAGE] or http://…")


def parse_root_paths(texts: Sequence[str]) -> list[RootPath]:
    """From the outside in: the image, and the one inside of it, which is a file in it. Raises WrongBootArgument."""
    if not 0 < len(texts) <= MOST_NESTED:
        raise WrongBootArgument(f"{len(texts)} images in each other; at most {MOST_NESTED} are opened")
    paths = [parse_root_path(text) for text in texts]
    if len(paths) > 1 and paths[1].kind != "file":
        raise WrongBootArgument(f"{texts[1]}: an image inside another is file:///PATH")
    if len(paths) > 1 and not paths[0].image:
        raise WrongBootArgument(f"{texts[0]}: that is a folder; what is inside of it is named by it alone")
    return paths


def _url(text: str) -> str:
    rest = text.split(":", 1)[1]
    if not rest.startswith("//") or len(rest) < 3 or rest[2] == "/" or any(part.isspace() for part in text):
        raise WrongBootArgument(f"{text}: write http://HOST/PATH")
    return text


def _export(text: str, parts: list[str], *, named: bool) -> RootPath:
    names = ("IP", "HOST", "FOLDER") if named else ("IP", "FOLDER")
    form = ("" if named else "nfs:") + ":".join(names) + "[:IMAGE]"
    if not len(names) <= len(parts) <= len(names) + 1:
        raise WrongBootArgument(f"{text}: write {form}")
    server, host = parts[0], parts[1] if named else ""
    folder = parts[len(names) - 1]
    image = parts[len(names)] if len(parts) > len(names) else ""
    if not _is_address(server):
        raise WrongBootArgument(f"{text}: {server!r} is no IPv4 address; write {form}")
    if not folder.startswith("/"):
        raise WrongBootArgument(f"{text}: {folder!r} is no absolute path; write {form}")
    if len(parts) > len(names) and not image.strip("/"):
        raise WrongBootArgument(f"{text}: the image is missing after the last colon; write {form}")
    for path in (folder, image):
        if ".." in path.split("/"):
            raise WrongBootArgument(f"{text}: {path!r} leads out of its folder")
    return RootPath("nfs", server, host, _tidy(folder), _tidy(image).lstrip("/"))


def _tidy(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def _is_address(text: str) -> bool:
    try:
        return text.isascii() and bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False
