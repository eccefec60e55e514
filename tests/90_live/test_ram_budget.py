"""What the shadow in memory promises, on real mounts: a hard budget that counts everything, ENOSPC before any change, space
that comes back, another size while it is used; and what costs nothing."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from builders.processes import errno_of
from exercise.mounted import dmgfs, mounted

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def status(place: Path) -> dict[str, Any]:
    return json.loads(dmgfs("status", place, "--json").out)


def shadow(place: Path) -> dict[str, int]:
    return status(place)["shadow"]


def used(place: Path) -> int:
    return shadow(place)["used"]


def resident(place: Path) -> int:
    process = status(place)["pid"]
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def room(place: Path) -> int:
    usage = os.statvfs(place)
    return usage.f_bavail * usage.f_frsize


def mixed(folder: Path, count: int) -> None:
    """Names, nodes, attributes, links, small files and pages."""
    for number in range(count // 20):
        inner = folder / f"directory {number}"
        inner.mkdir()
        for index in range(20):
            file = inner / f"a file {index}"
            file.write_bytes(os.urandom([10, 300, 2000, 5000, 20000][index % 5]))
            if index % 4 == 0:
                os.setxattr(file, "user.attribute", os.urandom(50))
        os.symlink("a file 0", inner / "symlink")
        os.link(inner / "a file 1", inner / "link")


def test_the_budget_counts_what_the_process_grows_by(image, place):
    with mounted(image, place, "--shadow", "ram:200M"):
        mixed(place / "Folder", 400)  # whatever grows once and for all
        before, counted = resident(place), used(place)
        mixed(place, 2000)
        with open(place / "large", "wb") as file:
            for _ in range(10):
                file.write(os.urandom(MIB))
        grown, more = resident(place) - before, used(place) - counted
        assert grown > 15 * MIB
        assert 0.9 * grown < more < 1.1 * grown, f"{grown} bytes more, {more} counted"
        assert abs(room(place) - (200 * MIB - used(place))) < MIB


def test_a_full_shadow_refuses_and_has_changed_nothing(image, place):
    with mounted(image, place, "--shadow", "ram:8M"):
        (place / "kept").write_bytes(b"k" * 10_000)
        with open(place / "filler", "wb", buffering=0) as filler:
            size = 0
            while errno_of(lambda: filler.write(os.urandom(65536))) != errno.ENOSPC:
                size += 65536
            while errno_of(lambda: filler.write(os.urandom(4096))) != errno.ENOSPC:
                size += 4096
        assert os.stat(place / "filler").st_size == size > 7 * MIB
        before = shadow(place)
        time = os.stat(place / "kept").st_mtime_ns
        listed = sorted(os.listdir(place))
        descriptor, other = (os.open(place / name, os.O_RDWR) for name in ("kept", "other"))
        for change in (
            lambda: os.pwrite(descriptor, os.urandom(2 * MIB), 12288),  # the kernel cuts at pages
            lambda: os.setxattr(place / "kept", "user.large", os.urandom(60_000)),
            lambda: os.pwrite(other, b"first byte", 0),
        ):
            assert errno_of(change) == errno.ENOSPC
        os.close(descriptor)
        os.close(other)
        made = 0
        while errno_of(os.mkdir, place / f"made {made}") != errno.ENOSPC:
            made += 1
            assert made < 1000
        assert sorted(os.listdir(place)) == sorted([*listed, *(f"made {number}" for number in range(made))])
        for number in range(made):
            os.rmdir(place / f"made {number}")
        assert (place / "kept").read_bytes() == b"k" * 10_000
        assert os.stat(place / "kept").st_mtime_ns == time
        assert (place / "other").read_bytes() == b"other\n" * 1000
        assert os.listxattr(place / "kept") == []
        after = shadow(place)
        assert (after["used"], after["objects"]) == (before["used"], before["objects"])
        assert after["used"] <= after["budget"] == 8 * MIB
        assert room(place) < MIB
        os.unlink(place / "filler")  # what frees something never fails
        (place / "again").write_bytes(os.urandom(6 * MIB))


def test_space_comes_back_with_deleting_and_truncating(image, place):
    with mounted(image, place, "--shadow", "ram:200M"):
        (place / "warm").write_bytes(os.urandom(MIB))
        before, counted = resident(place), used(place)
        for name in ("one", "two"):
            with open(place / name, "wb") as file:
                for _ in range(40):
                    file.write(os.urandom(MIB))
        assert used(place) - counted > 80 * MIB
        os.truncate(place / "one", 10 * MIB)
        assert used(place) - counted < 51 * MIB
        assert resident(place) - before < 56 * MIB
        os.truncate(place / "one", 40 * MIB)  # a hole
        assert used(place) - counted < 51 * MIB
        os.unlink(place / "one")
        with open(place / "two", "rb"):
            os.unlink(place / "two")
            assert used(place) - counted > 40 * MIB  # somebody has it open
        assert used(place) - counted < 20_000
        assert resident(place) - before < 8 * MIB


def test_another_size_while_it_is_used(image, place):
    with mounted(image, place, "--shadow", "ram:4M"):
        assert errno_of(lambda: (place / "big").write_bytes(os.urandom(6 * MIB))) == errno.ENOSPC
        with open(place / "big", "wb", buffering=0) as file:
            file.write(os.urandom(MIB))
            assert dmgfs("shadow", "resize", place, "16M").code == 0
            for _ in range(10):
                assert file.write(os.urandom(MIB)) == MIB
        assert shadow(place)["budget"] == 16 * MIB
        ended = dmgfs("shadow", "resize", place, "4M")
        assert ended.code != 0
        assert "bytes are in use" in ended.err
        assert shadow(place)["budget"] == 16 * MIB
        os.truncate(place / "big", MIB)
        assert dmgfs("shadow", "resize", place, "4M").code == 0
        assert abs(room(place) - (4 * MIB - used(place))) < 65536


def test_small_files_are_inline(image, place):
    with mounted(image, place, "--shadow", "ram:64M"):
        before = shadow(place)
        for number in range(1000):
            (place / f"small {number}").write_bytes(b"%d" % number * 30)
        after = shadow(place)
        assert after["pages"] == before["pages"]
        assert after["used"] - before["used"] < 1000 * 1200  # where a page alone takes 4096
        assert (place / "small 77").read_bytes() == b"77" * 30


def test_holes_and_zeros_cost_nothing(image, place):
    with mounted(image, place, "--shadow", "ram:64M"):
        with open(place / "sparse", "wb", buffering=0) as file:
            before = shadow(place)
            for offset in (0, 1 << 30, 1 << 40, (1 << 45) + 12345):
                assert os.pwrite(file.fileno(), b"byte", offset) == 4
            now = shadow(place)
            assert now["pages"] - before["pages"] == 4
            assert now["used"] - before["used"] < 4 * 5000
            assert os.stat(place / "sparse").st_blocks * 512 == 4 * 4096
            before = now
            zeros = bytes(MIB)
            for offset in range(0, 32 * MIB, MIB):
                os.pwrite(file.fileno(), zeros, offset)
            now = shadow(place)
            assert now["pages"] - before["pages"] == -1  # the one that was there is zeros now
            assert now["used"] - before["used"] < 60_000
            os.pwrite(file.fileno(), os.urandom(MIB), 0)
            assert shadow(place)["pages"] - now["pages"] == 256
            for offset in range(0, MIB, 512):  # less than pages, one by one
                os.pwrite(file.fileno(), bytes(512), offset)
            assert shadow(place)["pages"] == now["pages"]
        before = shadow(place)
        with open(place / "other", "r+b", buffering=0) as file:  # a file of the image
            os.pwrite(file.fileno(), bytes(4096), 0)
        now = shadow(place)
        assert now["pages"] == before["pages"]
        assert (place / "other").read_bytes() == bytes(4096) + (b"other\n" * 1000)[4096:]
