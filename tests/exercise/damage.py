"""Damaged copies of images, mounted for real and looked at whole. Whatever the damage: the mount is refused with one line
and an honest exit code, or it answers every request, lives on, and leaves no traceback in its log.

The damage follows from (image, seed), so that a finding can be made again.
"""

import contextlib
import errno
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dmgfs
from exercise.daemon import clear_away, has_ended, process_of
from exercise.mounted import DMGFS, is_mounted

WALKTHROUGH = Path(__file__).with_name("walkthrough.py")

REFUSALS = frozenset({65, 66, 69, 71, 74, 77})
"""Exit codes of a mount that damage may cause: damaged, no image, unsupported, a volume that is not there, passphrase."""

ERRNOS = frozenset({"EIO", "ENOTSUP", "EOPNOTSUPP", "E2BIG", "ELOOP", "ENODATA", "ERANGE", "ENAMETOOLONG", "ENOENT"})
"""What requests may end in. ENOENT: a name that is listed and is not found, where an index is damaged."""

MOUNT_SECONDS = 30.0
WALK_SECONDS = 40.0
END = 64 << 10
START = 16 << 10
MOST_OF_A_DISK = 256 << 20


class Outcome(NamedTuple):
    """Of one damaged image. faults: what must not be, empty if all is well. objects, bytes: how much could be seen.
    mounted: False if the image was refused. slow: the walk was cut short."""

    faults: list[str]
    mounted: bool
    objects: int
    bytes: int
    errors: dict[str, int]
    slow: bool
    seconds: float


def damage(image: Path, copy: Path, seed: int, flips: int) -> None:
    """Copies the image with `flips` bits changed: a third anywhere, a third near the end (a UDIF's trailer and tables), a
    third near the start (partition map, volume header, trees of a small volume)."""
    data = bytearray(image.read_bytes())
    chance = random.Random(f"{image.name} {seed}")
    for number in range(flips):
        low, high = [(0, len(data)), (max(0, len(data) - END), len(data)), (0, min(START, len(data)))][number % 3]
        data[chance.randrange(low, high)] ^= 1 << chance.randrange(8)
    copy.write_bytes(data)


def damage_inside(image: Path, copy: Path, seed: int, flips: int, passphrase: bytes | None = None) -> None:
    """Writes the image's disk out with `flips` bits changed in its volume's own structures: every other one in the volume
    header or at the start of a B-tree, the rest anywhere in the B-trees where something stands. Raises DmgError for what is
    no such image."""
    with dmgfs.open_image(image, passphrase=passphrase) as opened:
        if opened.disk.size > MOST_OF_A_DISK:
            raise ValueError(f"a disk of {opened.disk.size} bytes")
        partition = opened.choose()
        data = bytearray(opened.disk.read(0, opened.disk.size))
        start = opened.found(partition).start
    trees = tree_areas(data, start)
    chance = random.Random(f"{image.name} inside {seed}")
    for number in range(flips):
        low, length = chance.choice(trees or [(start + 1024, START)])
        if number % 4 == 0:
            low, length = start + 1024, 512
        elif number % 2 == 0:
            length = min(length, 4096)
        at = next(
            (at for at in (chance.randrange(low, low + length) for _ in range(100)) if any(data[at : at + 1])), None
        )
        if at is not None:
            data[at] ^= 1 << chance.randrange(8)
    copy.write_bytes(data)


def tree_areas(data: bytearray, start: int) -> list[tuple[int, int]]:
    """(offset, length) of the first extents of the B-trees of the HFS+ volume at `start`; empty if it is none."""
    header = start + 1024
    if data[header : header + 2] not in (b"H+", b"HX"):
        return []
    (block_size,) = struct.unpack_from(">I", data, header + 40)
    areas = []
    for fork in (192, 272, 352):
        for first, count in struct.iter_unpack(">II", data[header + fork + 16 : header + fork + 80]):
            if count:
                areas.append((start + first * block_size, count * block_size))
    return areas


def try_out(image: Path, work: Path, options: Sequence[str | Path] = ()) -> Outcome:
    """Mounts the image on a folder in `work`, looks at everything, unmounts."""
    place, log = work / "mnt", work / "log"
    place.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    began = time.monotonic()
    faults: list[str] = []
    seen: dict[str, Any] = {"objects": 0, "bytes": 0, "errors": {}, "complete": True}
    mounted = False
    try:
        said = subprocess.run(
            [DMGFS, "mount", image, place, "--log", log, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MOUNT_SECONDS,
            check=False,
        )
        mounted = said.returncode == 0
        text = said.stderr.decode("utf-8", "replace")
        if "Traceback" in text or "internal error" in text:
            faults.append(f"mount said: {text.strip()[-1500:]}")
        if not mounted and (said.returncode not in REFUSALS or len(text.splitlines()) != 1):
            faults.append(f"mount was refused with exit code {said.returncode} and {text.strip()[-500:]!r}")
        if mounted:
            seen = look_at(place, faults)
            end(place, faults)
    except subprocess.TimeoutExpired as late:
        faults.append(f"no answer in {late.timeout:.0f} s: {late.cmd[1]}")
    finally:
        leave_nothing(place)
    if log.exists():
        faults += [line for line in log.read_text("utf-8", "replace").splitlines() if is_fault(line)][:5]
    return Outcome(
        faults,
        mounted,
        seen["objects"],
        seen["bytes"],
        seen["errors"],
        not seen["complete"],
        time.monotonic() - began,
    )


def is_fault(line: str) -> bool:
    """Of the log: damage is a warning, an error is ours."""
    return " ERROR " in line or " CRITICAL " in line or "Traceback" in line


def look_at(place: Path, faults: list[str]) -> dict[str, Any]:
    """What a walk through everything met."""
    process = process_of(place)
    walk = subprocess.run(
        [sys.executable, WALKTHROUGH, place, str(WALK_SECONDS)],
        capture_output=True,
        timeout=WALK_SECONDS + MOUNT_SECONDS,
        check=True,
    )
    seen: dict[str, Any] = json.loads(walk.stdout)
    strange = {name: count for name, count in seen["errors"].items() if name not in ERRNOS}
    if strange:
        faults.append(f"requests ended in {strange}")
    try:
        os.kill(process, 0)
        os.listdir(place)
    except ProcessLookupError:
        faults.append("the daemon is dead")
    except OSError as error:
        if error.errno != errno.EIO:  # a root folder that cannot be listed is damage
            faults.append(f"after the walk the mount says {error.strerror}")
    return seen


def end(place: Path, faults: list[str]) -> None:
    process = process_of(place)
    done = subprocess.run(["umount", place], capture_output=True, timeout=MOUNT_SECONDS, check=False)
    if done.returncode:
        faults.append(f"umount: {done.stderr.decode().strip()}")
    elif not has_ended(process):
        faults.append("the daemon outlives its mount")
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def leave_nothing(place: Path) -> None:
    """Also where the mount hangs: then its daemon is found by its command line, not through the mount."""
    if not is_mounted(place):
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(place) in words and b"mount" in words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
    clear_away(place)
