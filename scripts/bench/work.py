"""What is measured: the pieces of work, each with the mount it wants and the figure it gives.

Rules that hold here:
- a Measure is wall seconds, processor seconds of the daemons meanwhile, and what else took processor time (`foreign`, a
  share of the machine: with much of it a figure says little);
- work of one chain runs on one mount, in order; each chain begins with a fresh mount and a cold image;
- clients are ordinary programs (find, cat, tar, rm) or plain system calls in a loop.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Process
from pathlib import Path
from typing import NamedTuple

from systems import CLOCK_TICKS, Mount, cold

from dmgfs import open_image
from dmgfs.volume import ROOT_FOLDER

MIB = 1 << 20
CHUNK = 256 << 10


class Measure(NamedTuple):
    """value: what the row shows (seconds, or per second, or bytes, as its unit says)."""

    value: float
    cpu: float
    foreign: float


class Meter:
    """Runs one piece of work at a time on `mount`."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.seconds = self.cpu = self.foreign = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        before = self._ours()
        busy, total = _machine()
        start = time.perf_counter()
        daemon = self.mount.cpu()
        yield
        self.seconds = time.perf_counter() - start
        self.cpu = self.mount.cpu() - daemon
        busy_after, total_after = _machine()
        theirs = (busy_after - busy) - (self._ours() - before)
        self.foreign = max(0.0, theirs / max(total_after - total, 1 / CLOCK_TICKS))

    def _ours(self) -> float:
        times = os.times()
        return sum(times[:4]) + self.mount.cpu()

    def measure(self, value: float | None = None) -> Measure:
        return Measure(self.seconds if value is None else value, self.cpu, self.foreign)


def _machine() -> tuple[float, float]:
    """Busy and total processor seconds of the machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    total = sum(fields)
    return (total - fields[3] - fields[4]) / CLOCK_TICKS, total / CLOCK_TICKS


def _foreign(before: tuple[float, float], used: float) -> float:
    """The share of the machine that others took since `before`, of which we used so many seconds."""
    busy, total = _machine()
    return max(0.0, (busy - before[0] - used) / max(total - before[1], 1 / CLOCK_TICKS))


def shell(command: str, path: Path) -> None:
    subprocess.run(["sh", "-c", command], cwd=path, check=True, stdout=subprocess.DEVNULL)


Work = Callable[[Meter, Path], Measure]


class Row(NamedTuple):
    """title, unit: of the table. work(meter, images) → Measure. higher: more is better."""

    key: str
    title: str
    unit: str
    work: Work
    higher: bool = False
    bare: bool = True  # the bare RAM file system, which has nothing in it, can do it


def mounting(meter: Meter, images: Path) -> Measure:
    return Measure(meter.mount.seconds, meter.mount.cpu(), 0.0)


def memory(meter: Meter, images: Path) -> Measure:
    return Measure(meter.mount.memory() / 1e6, 0.0, 0.0)


def walking(meter: Meter, images: Path) -> Measure:
    with meter.running():
        shell("find . -ls", meter.mount.path)
    return meter.measure()


def reading_all(meter: Meter, images: Path) -> Measure:
    with meter.running():
        shell("find . -type f -print0 | xargs -0 cat", meter.mount.path)
    return meter.measure()


def sequential(name: str) -> Work:
    def work(meter: Meter, images: Path) -> Measure:
        with meter.running():
            size = _read_through(meter.mount.path / name)
        return meter.measure(size / meter.seconds / 1e6)

    return work


def _read_through(path: Path) -> int:
    size = 0
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while done := file.readinto(buffer):
            size += done
    return size


def read_by_many(path: Path, readers: int) -> tuple[int, float]:
    """Bytes and seconds: `readers` processes at once, each reads its own part of the file from front to back."""
    share = path.stat().st_size // readers
    processes = [Process(target=_read_part, args=(path, number * share, share)) for number in range(readers)]
    start = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    if any(process.exitcode for process in processes):
        raise OSError(f"{path}: a reader failed")
    return share * readers, seconds


def _read_part(path: Path, at: int, length: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    end = at + length
    while at < end:
        at += len(os.pread(descriptor, min(MIB, end - at), at))


def one_thread(image: Path, name: str) -> Measure:
    """MB/s of the same file read by dmgfs's library, by one thread and without a mount."""
    cold(image)
    with open_image(image) as opened:
        volume = opened.volume()
        node = volume.find(ROOT_FOLDER, name)
        assert node is not None
        source = volume.data(node)
        before, cpu, start = _machine(), time.process_time(), time.perf_counter()
        for at in range(0, source.size, MIB):
            source.read(at, min(MIB, source.size - at))
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
        return Measure(source.size / seconds / 1e6, used, _foreign(before, used))


def extracting(command: Sequence[str], image: Path) -> Measure:
    """Seconds of a program that reads the whole image by itself."""
    cold(image)
    machine, before, start = _machine(), os.times(), time.perf_counter()
    subprocess.run([*command, image], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    return Measure(seconds, used, _foreign(machine, used))


def random_reads(meter: Meter, images: Path) -> Measure:
    """4 KiB of every chunk once, in any order: no read finds its chunk decoded."""
    descriptor = os.open(meter.mount.path / "big.tar", os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        offsets = [start + CHUNK // 2 for start in range(0, os.fstat(descriptor).st_size - CHUNK, CHUNK)]
        random.Random(1).shuffle(offsets)
        with meter.running():
            for offset in offsets[:500]:
                os.pread(descriptor, 4096, offset)
        return meter.measure(len(offsets[:500]) / meter.seconds)
    finally:
        os.close(descriptor)


def first_byte(meter: Meter, images: Path) -> Measure:
    """With the open, because that is when others copy the file."""
    FREE_BEFORE[meter.mount] = _free(meter.mount.path)
    with meter.running():
        descriptor = os.open(meter.mount.path / "huge", os.O_WRONLY)
        os.pwrite(descriptor, b"!", 512 << 20)
    os.close(descriptor)
    return meter.measure(meter.seconds * 1e3)


FREE_BEFORE: dict[Mount, int] = {}


def growth(meter: Meter, images: Path) -> Measure:
    """Of the store by that byte, in KiB."""
    if meter.mount.upper is not None:
        used = int(subprocess.check_output(["du", "-s", "-B1", meter.mount.upper]).split()[0])
    else:
        used = FREE_BEFORE[meter.mount] - _free(meter.mount.path)
    return Measure(used / 1024, 0.0, 0.0)


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def creating(meter: Meter, images: Path) -> Measure:
    folder = meter.mount.path / "new"
    data = b"x" * 100
    with meter.running():
        folder.mkdir()
        for number in range(10_000):
            descriptor = os.open(folder / f"file{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.write(descriptor, data)
            os.close(descriptor)
    return meter.measure()


def unpacking(meter: Meter, images: Path) -> Measure:
    folder = meter.mount.path / "unpacked"
    folder.mkdir()
    with meter.running():
        subprocess.run(["tar", "-C", folder, "-xf", images / "small.tar"], check=True)
    return meter.measure()


def appending(meter: Meter, images: Path) -> Measure:
    descriptor = os.open(meter.mount.path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    data = b"y" * 100
    try:
        with meter.running():
            for _ in range(20_000):
                os.write(descriptor, data)
        return meter.measure()
    finally:
        os.close(descriptor)


def removing(name: str) -> Work:
    def work(meter: Meter, images: Path) -> Measure:
        with meter.running():
            subprocess.run(["rm", "-r", meter.mount.path / name], check=True)
        return meter.measure()

    return work


def writing(meter: Meter, images: Path) -> Measure:
    block = os.urandom(MIB)
    descriptor = os.open(meter.mount.path / "written", os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        with meter.running():
            for _ in range(1024):
                os.write(descriptor, block)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return meter.measure()


def reading_back(meter: Meter, images: Path) -> Measure:
    path = meter.mount.path / "written"
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    with meter.running():
        _read_through(path)
    return meter.measure()


def renaming(meter: Meter, images: Path) -> Measure:
    with meter.running():
        os.rename(meter.mount.path / "many", meter.mount.path / "renamed")
    return meter.measure(meter.seconds * 1e3)


READ_CHAINS = (
    (Row("mount", "mount returns, warm", "s", mounting),),
    (
        Row("walk", "find -ls, cold", "s", walking, bare=False),
        Row("walk_again", "the same again", "s", walking, bare=False),
    ),
    (
        Row("read", "read every file, cold", "s", reading_all, bare=False),
        Row("read_again", "the same again", "s", reading_all, bare=False),
        Row("memory", "peak memory of that", "MB", memory, bare=False),
    ),
    (
        Row("sequential", "126 MB in 1 MiB reads, cold", "MB/s", sequential("big.tar"), True, bare=False),
        Row("sequential_again", "the same again", "MB/s", sequential("big.tar"), True, bare=False),
    ),
    (Row("random", "4 KiB of each chunk, random order, cold", "1/s", random_reads, True, bare=False),),
    (Row("random_warm", "the same, the image in memory", "1/s", random_reads, True, bare=False),),
)
WRITE_CHAINS = (
    (
        Row("first_byte", "first byte into 1 GiB", "ms", first_byte, bare=False),
        Row("growth", "store grows by", "KiB", growth, bare=False),
    ),
    (
        Row("create", "create 10,000 files of 100 B", "s", creating),
        Row("append", "append 20,000 x 100 B", "s", appending),
    ),
    (
        Row("unpack", "tar x, 9,700 entries", "s", unpacking),
        Row("remove", "rm -r of those", "s", removing("unpacked")),
    ),
    (Row("remove_lower", "rm -r of 10,000 files of the image", "s", removing("many"), bare=False),),
    (Row("rename", "rename a folder with 10,000 files", "ms", renaming, bare=False),),
    (
        Row("write", "write 1 GiB", "s", writing),
        Row("read_back", "read it back", "s", reading_back),
    ),
)
