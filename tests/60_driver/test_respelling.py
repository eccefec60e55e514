"""What a look-up is for, read off /proc: of threads that there are, and of a /proc made here."""

import os
import threading
from pathlib import Path

import pytest

from dmgfs.fuse.respelling import Respelling

THREAD = 77
OLD, NEW = 0x100, 0x1200


def made(
    folder: Path,
    call: str = "82 {old:#x} {new:#x} 0x0 0x0 0x0 0x0 0x7ffc 0x7f00",
    old: bytes = b"readme",
    new: bytes = b"README",
    **links: str,
) -> Respelling:
    """With a /proc in which THREAD is in the system call."""
    of_thread = folder / str(THREAD)
    (of_thread / "fd").mkdir(parents=True)
    (of_thread / "syscall").write_text(call.format(old=OLD, new=NEW) + "\n")
    memory = bytearray(0x3000)
    memory[OLD : OLD + len(old)] = old
    memory[NEW : NEW + len(new)] = new
    (of_thread / "mem").write_bytes(memory)
    for name, target in {"cwd": "/live", "root": "/", "fd3": "/live", "fd4": "/other", **links}.items():
        (of_thread / name.replace("fd", "fd/")).symlink_to(target)
    return Respelling(bytes.lower, machine="x86_64", proc=os.open(folder, os.O_PATH | os.O_DIRECTORY))


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (b"readme", b"README", b"README"),
        (b"./readme", b"README", b"README"),
        (b"/live/readme", b"README", b"README"),
        (b"/live//readme", b"/live/./README", b"README"),
        (b"a/readme", b"a/README", b"README"),
        (b"/live/dir/", b"/live/DIR/", b"DIR"),
    ],
)
def test_another_spelling_in_the_same_directory(tmp_path: Path, old: bytes, new: bytes, name: bytes) -> None:
    respelling = made(tmp_path, old=old, new=new)
    assert respelling.may_be(THREAD)
    assert respelling.is_target(THREAD, name)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (b"readme", b"README", b"readme"),
        (b"readme", b"README", b"ReadMe"),
        (b"readme", b"readme", b"readme"),
        (b"other", b"README", b"README"),
        (b"a/readme", b"README", b"README"),
        (b"a/readme", b"b/README", b"README"),
        (b"DIR/dir", b"DIR/DIR", b"DIR"),
        (b"readme", b"", b"README"),
        (b"", b"", b""),
        (b"/", b"/", b""),
        (b"x" * 0x1F00, b"README", b"README"),
    ],
)
def test_anything_else(tmp_path: Path, old: bytes, new: bytes, name: bytes) -> None:
    assert not made(tmp_path, old=old, new=new).is_target(THREAD, name)


@pytest.mark.parametrize(
    ("call", "target"),
    [
        ("264 0x3 {old:#x} 0x3 {new:#x} 0x0 0x0 0x7ffc 0x7f00", True),
        ("264 0x3 {old:#x} 0xffffff9c {new:#x} 0x0 0x0 0x7ffc 0x7f00", True),
        ("264 0xffffffffffffff9c {old:#x} 0x3 {new:#x} 0x0 0x0 0x7ffc 0x7f00", True),
        ("264 0x3 {old:#x} 0x4 {new:#x} 0x0 0x0 0x7ffc 0x7f00", False),
        ("264 0x3 {old:#x} 0x5 {new:#x} 0x0 0x0 0x7ffc 0x7f00", False),
        ("316 0x3 {old:#x} 0x3 {new:#x} 0x0 0x0 0x7ffc 0x7f00", True),
        ("316 0x3 {old:#x} 0x3 {new:#x} 0x1 0x0 0x7ffc 0x7f00", True),
        ("316 0x3 {old:#x} 0x3 {new:#x} 0x2 0x0 0x7ffc 0x7f00", False),
        ("257 0x3 {old:#x} 0x3 {new:#x} 0x0 0x0 0x7ffc 0x7f00", False),
        ("82 0x0 0x0 0x0 0x0 0x0 0x0 0x7ffc 0x7f00", False),
        ("82 0xffffffffffffffff 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x7ffc 0x7f00", False),
        ("-1 0x7ffc 0x7f00", False),
        ("running", False),
        ("82 0x0", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_system_calls(tmp_path: Path, call: str, target: bool) -> None:
    assert made(tmp_path, call).is_target(THREAD, b"README") == target


def test_a_thread_that_does_something_else_is_seen_at_once(tmp_path: Path) -> None:
    respelling = made(tmp_path, "257 0xffffff9c 0x100 0x0 0x0 0x0 0x0 0x7ffc 0x7f00")
    assert not respelling.may_be(THREAD)
    assert not respelling.may_be(THREAD + 1)
    assert not respelling.may_be(0)
    (tmp_path / str(THREAD) / "syscall").write_text("running\n")
    assert respelling.may_be(THREAD), "it may be about to wait"


def test_a_thread_in_a_changed_root(tmp_path: Path) -> None:
    """Its absolute paths begin there; where it stands is told from outside."""
    assert made(tmp_path, old=b"/a/readme", cwd="/live/a", root="/live").is_target(THREAD, b"README")
    assert not made(tmp_path / "x", old=b"/readme", cwd="/live/a", root="/live").is_target(THREAD, b"README")


def test_a_processor_that_is_not_known(tmp_path: Path) -> None:
    proc = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    assert not Respelling(bytes.lower, machine="riscv64", proc=proc).may_be(THREAD)


def test_without_proc(tmp_path: Path) -> None:
    respelling = made(tmp_path)
    respelling.close()
    assert not respelling.may_be(THREAD)
    assert not respelling.is_target(THREAD, b"README")


def test_a_real_thread_that_waits_elsewhere() -> None:
    """/proc of this kernel is read as it is."""
    reading, writing = os.pipe()
    known: list[int] = []

    def wait() -> None:
        known.append(threading.get_native_id())
        os.read(reading, 1)

    thread = threading.Thread(target=wait)
    thread.start()
    respelling = Respelling(bytes.lower)
    try:
        while not known or not Path(f"/proc/{known[0]}/syscall").read_text().startswith("0 "):
            pass
        assert not respelling.may_be(known[0])
    finally:
        os.write(writing, b"x")
        thread.join()
        respelling.close()
        os.close(reading)
        os.close(writing)
