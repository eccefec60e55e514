"""File handles, as NFS servers and backup programs keep them: an object is found again by its number after the kernel has
forgotten it, and never after it was removed."""

import ctypes
import errno
import os
from pathlib import Path

import pytest
from exercise.mounted import mounted

pytestmark = pytest.mark.kernel

AT_FDCWD = -100


class Handle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("opaque", ctypes.c_ubyte * 128))


LIBC = ctypes.CDLL(None, use_errno=True)


def handle_of(path: Path) -> Handle:
    handle, mount = Handle(bytes=128), ctypes.c_int()
    if LIBC.name_to_handle_at(AT_FDCWD, bytes(path), ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle


def open_handle(place: Path, handle: Handle) -> int:
    root = os.open(place, os.O_RDONLY)
    try:
        descriptor = LIBC.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return descriptor
    finally:
        os.close(root)


def forget_everything() -> None:
    """The kernel lets go of all inodes that nobody uses."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


def test_objects_are_found_again(image, place):
    with mounted(image, place):
        paths = [place / "ReadMe", place / "Folder" / "inner" / "deep", place / "Folder" / "inner", place]
        wanted = [(path.stat().st_ino, handle_of(path)) for path in paths]
        forget_everything()
        for ino, handle in wanted:
            descriptor = open_handle(place, handle)
            try:
                assert os.fstat(descriptor).st_ino == ino
            finally:
                os.close(descriptor)
        assert (place / "ReadMe").read_bytes() == b"read me\n"


@pytest.mark.parametrize("new", [False, True])
def test_removed_objects_are_stale(image, place, new):
    with mounted(image, place, "--shadow", "ram"):
        path = place / ("new" if new else "ReadMe")
        if new:
            path.write_text("new")
        handle = handle_of(path)
        path.unlink()
        forget_everything()
        with pytest.raises(OSError, match="open_by_handle_at") as caught:
            os.close(open_handle(place, handle))
        assert caught.value.errno == errno.ESTALE


def test_new_objects_are_found_again(image, place):
    with mounted(image, place, "--shadow", "ram"):
        (place / "Folder" / "new").write_bytes(b"new")
        handle = handle_of(place / "Folder" / "new")
        (place / "Folder").rename(place / "moved")
        forget_everything()
        descriptor = open_handle(place, handle)
        try:
            assert os.read(descriptor, 10) == b"new"
        finally:
            os.close(descriptor)


def test_forgotten_and_looked_up_again_many_times(image, place):
    """The numbers of holds and of forgets must agree, or an object in use would be freed."""
    with mounted(image, place, "--shadow", "ram"):
        (place / "new").write_bytes(b"x" * 5000)
        for _ in range(20):
            for folder, _, files in os.walk(place):
                for file in files:
                    os.lstat(os.path.join(folder, file))
            forget_everything()
        with open(place / "new", "rb") as file:
            (place / "new").unlink()
            for _ in range(3):
                forget_everything()
                os.listdir(place)
            assert file.read() == b"x" * 5000
            assert os.fstat(file.fileno()).st_nlink == 0
