"""Root paths as Darwin's imageboot takes them: a URL of a disk image.

Rule: what is no such path raises WrongBootArgument that names the form that would be right.
"""

import os
from urllib.parse import unquote_to_bytes

from dmgfs.errors import WrongBootArgument

_FILE = "file://"


def file_path(text: str) -> str:
    """file:///path, percent-decoded, or a plain absolute path, as an absolute path without empty parts.

    Bytes that are not UTF-8 become lone surrogates, as everywhere in Python's file names. Raises WrongBootArgument."""
    path = text
    if text.startswith(_FILE):
        path = unquote_to_bytes(os.fsencode(text[len(_FILE) :])).decode("utf-8", "surrogateescape")
    if not path.startswith("/"):
        raise WrongBootArgument(f"{text}: write file:///path/image.dmg (no host, an absolute path)")
    if "\0" in path:
        raise WrongBootArgument(f"{text}: %00 ends no path")
    parts = [part for part in path.split("/") if part]
    if not parts or path.endswith("/"):
        raise WrongBootArgument(f"{text}: that is a folder; name the image in it")
    return "/" + "/".join(parts)
