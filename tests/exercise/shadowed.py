"""A mount whose changes are looked at: what `dmgfs shadow` is asked, some changes, and all that shows in a folder."""

import hashlib
import json
import os
import stat
from pathlib import Path

from exercise.daemon import has_ended, process_of
from exercise.mounted import dmgfs


def start(image: Path, place: Path, *options: str | Path) -> None:
    ended = dmgfs("mount", image, place, *options)
    assert (ended.code, ended.err) == (0, "")


def unmount(place: Path) -> None:
    """And the daemon has ended: it lives on while a mount namespace does that somebody made meanwhile."""
    process = process_of(place)
    assert dmgfs("unmount", place).code == 0
    assert has_ended(process, 120)


def shadow(*arguments: str | Path) -> str:
    ended = dmgfs("shadow", *arguments)
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def refused(*arguments: str | Path) -> str:
    ended = dmgfs("shadow", *arguments)
    assert ended.code != 0
    assert len(ended.err.splitlines()) == 1
    return ended.err


def used(place: Path) -> int:
    return json.loads(dmgfs("status", place, "--json").out)["shadow"]["used"]


def change(place: Path) -> None:
    os.unlink(place / "ReadMe")
    (place / "other").write_bytes(b"changed")
    os.chmod(place / "program", 0o600)
    os.rename(place / "Folder", place / "Renamed")
    (place / "Renamed" / "new").write_bytes(b"new\n" * 5000)
    os.setxattr(place / "tagged", "user.mine", b"\0value")
    os.mkfifo(place / "pipe")


CHANGES = {
    ("deleted", "ReadMe"),
    ("changed", "other"),
    ("metadata", "program"),
    ("renamed", "Renamed"),
    ("added", "Renamed/new"),
    ("metadata", "tagged"),
    ("added", "pipe"),
}


def facts(place: Path) -> dict[str, object]:
    """Everything below, as stat and read show it; without times of directories, which follow from the rest."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(place):
        for name in folders + files:
            path = Path(folder, name)
            status = path.lstat()
            data = os.readlink(path) if path.is_symlink() and name != "damaged link" else None
            if stat.S_ISREG(status.st_mode):
                data = hashlib.sha256(path.read_bytes()).hexdigest()
            times = None if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            links = None if stat.S_ISDIR(status.st_mode) else status.st_nlink
            key = (status.st_mode, status.st_uid, status.st_gid, links, times, data)
            found[str(path.relative_to(place))] = key
    return found
