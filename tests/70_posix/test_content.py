"""Bytes: written anywhere, read back everywhere, mapped, sparse, locked and executed."""

import errno
import fcntl
import mmap
import os
import random
import shutil
import subprocess

import pytest
from builders.processes import errno_of
from place import Place


def test_writes_at_random_places(place: Place) -> None:
    path = place.write("x", b"begin" * 3000)
    model = bytearray(b"begin" * 3000)
    chance = random.Random(7)
    descriptor = os.open(path, os.O_RDWR)
    for _ in range(300):
        offset, length = chance.randrange(60_000), chance.randrange(1, 9000)
        data = chance.randbytes(length)
        model.extend(bytes(max(0, offset + length - len(model))))
        model[offset : offset + length] = data
        assert os.pwrite(descriptor, data, offset) == length
        if chance.random() < 0.1:
            size = chance.randrange(60_000)
            os.ftruncate(descriptor, size)
            del model[size:]
            model.extend(bytes(size - len(model)))
    os.close(descriptor)
    with open(path, "rb") as file:
        assert file.read() == model


def test_shared_mappings_and_writes_see_each_other(place: Place) -> None:
    path = place.write("x", bytes(20_000))
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 20_000) as mapping:
        mapping[5000:5005] = b"hello"
        assert os.pread(descriptor, 5, 5000) == b"hello"
        os.pwrite(descriptor, b"world", 9000)
        assert mapping[9000:9005] == b"world"
        mapping.flush()
    os.close(descriptor)
    with open(path, "rb") as file:
        data = file.read()
    assert (data[5000:5005], data[9000:9005]) == (b"hello", b"world")


def test_a_private_mapping_stays_private(place: Place) -> None:
    path = place.write("x", b"a" * 8192)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 8192, access=mmap.ACCESS_COPY) as mapping:
        mapping[0:3] = b"bcd"
    with open(path, "rb") as file:
        assert file.read(3) == b"aaa"


def test_a_read_only_mapping_sees_a_later_write(place: Place) -> None:
    path = place.write("x", b"a" * 8192)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 8192, access=mmap.ACCESS_READ) as mapping:
        assert mapping[4096] == ord("a")
        with open(path, "r+b") as other:
            other.seek(4096)
            other.write(b"Z")
        assert mapping[4096] == ord("Z")


def test_holes_cost_nothing_and_read_as_zeros(place: Place) -> None:
    path = place.write("x", b"")
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, b"end", 100 << 20)
    assert os.fstat(descriptor).st_size == (100 << 20) + 3
    assert os.fstat(descriptor).st_blocks * 512 < 1 << 20
    assert os.pread(descriptor, 10, 50 << 20) == bytes(10)
    os.close(descriptor)


def test_fsync(place: Place) -> None:
    path = place.write("x", b"data")
    for target, flags in ((path, os.O_RDWR), (os.fspath(place.root), os.O_RDONLY)):
        descriptor = os.open(target, flags)
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        os.close(descriptor)


def test_locks(place: Place) -> None:
    path = place.write("x", b"data")
    with open(path, "r+b") as first, open(path, "r+b") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        assert errno_of(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EWOULDBLOCK
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_fallocate_works_or_is_refused_and_never_damages(place: Place) -> None:
    path = place.write("x", b"data" * 2000)
    descriptor = os.open(path, os.O_RDWR)
    assert errno_of(os.posix_fallocate, descriptor, 0, 20_000) in (0, errno.EOPNOTSUPP)
    data = os.pread(descriptor, 20_000, 0)
    assert data[:8000] == b"data" * 2000
    assert not any(data[8000:])
    os.close(descriptor)


def test_programs_run(place: Place) -> None:
    script = place.write("script", b'#!/bin/sh\necho ran "$1"\n', 0o755)
    assert subprocess.run([script, "well"], capture_output=True, check=True, timeout=20).stdout == b"ran well\n"
    program = place.make("file", "true", 0o755)
    shutil.copyfile("/bin/true", program)
    assert subprocess.run([program], timeout=20).returncode == 0
    os.chmod(program, 0o644)
    assert errno_of(subprocess.run, [program]) == errno.EACCES


def test_a_running_program_can_not_be_written(place: Place) -> None:
    program = place.make("file", "sleep", 0o755)
    shutil.copyfile("/bin/sleep", program)
    os.chmod(program, 0o755)
    process = subprocess.Popen([program, "20"])
    try:
        assert errno_of(os.open, program, os.O_WRONLY) == errno.ETXTBSY
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("block", [1, 511, 4096, 70_000])
def test_copies_are_equal(place: Place, block: int) -> None:
    data = random.Random(block).randbytes(200_000)
    path = place.write("x", data[: 200_000 if block > 100 else 3000])
    with open(path, "rb") as source, open(place / "y", "wb") as target:
        while piece := source.read(block):
            target.write(piece)
    with open(path, "rb") as first, open(place / "y", "rb") as second:
        assert first.read() == second.read()
    offset = os.stat(path).st_size // 2
    source, target = os.open(path, os.O_RDONLY), os.open(place / "z", os.O_CREAT | os.O_RDWR, 0o644)
    copied = os.copy_file_range(source, target, 1000, offset, 17)
    assert os.pread(target, copied, 17) == os.pread(source, copied, offset)
    assert copied > 0
    os.close(source)
    os.close(target)


def test_listing_while_deleting(place: Place) -> None:
    folder = place.make("dir", "d")
    for number in range(3000):
        os.close(os.open(f"{folder}/file-{number:05}", os.O_CREAT, 0o644))
    seen = []
    with os.scandir(folder) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert len(seen) == len(set(seen)) == 3000
    os.rmdir(folder)
