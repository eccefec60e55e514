"""The exported layer in the hands of a container tool that is not ours: umoci unpacks the image's tree and the layer over
it, and finds what the mount shows."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from exercise import randomops
from exercise.mounted import dmgfs, mounted
from exercise.trees import differences

pytestmark = pytest.mark.kernel

WORKLOAD = Path(__file__).resolve().parents[1] / "data/workload.dmg"


@pytest.fixture(autouse=True, scope="module")
def _umoci() -> None:
    if shutil.which("umoci") is None:
        if os.environ.get("CI"):
            pytest.fail("umoci is not installed (scripts/install --tests)")
        pytest.skip("umoci is not installed")


def umoci(*arguments: str | Path) -> None:
    done = subprocess.run(["umoci", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def unpacked(image: Path, layer: Path, folder: Path) -> Path:
    """The tree of a container image: all of the disk image, then the layer."""
    base = folder / "base.tar"
    assert dmgfs("extract", image, "--tar", base).code in (0, 65)  # 65: an object was damaged and is left out
    oci = folder / "oci"
    umoci("init", "--layout", oci)
    umoci("new", "--image", f"{oci}:all")
    for one in (base, layer):
        umoci("raw", "add-layer", "--image", f"{oci}:all", one)
    umoci("unpack", "--image", f"{oci}:all", folder / "bundle")
    return folder / "bundle" / "rootfs"


def test_everything_that_a_layer_can_say(sensitive_image, place, tmp_path):
    layer = tmp_path / "layer.tar"
    with mounted(sensitive_image, place, "--shadow", "ram:64M", "-o", "dev,suid"):
        os.unlink(place / "damaged link")
        os.unlink(place / "link")  # its mode is one that links have on macOS only
        os.unlink(place / "ReadMe")
        os.rename(place / "Folder" / "inner", place / "moved")
        shutil.rmtree(place / "Folder")
        (place / "Folder").mkdir()
        (place / "Folder" / "new in an old name").write_bytes(b"x" * 5000)
        (place / "other").unlink()
        (place / "other").mkdir(0o711)
        os.link(place / "first name", place / "other" / "third name")
        os.chmod(place / "program", 0o4711)
        os.setxattr(place / "tagged", "user.mine", b"\0binary\n")
        os.mkfifo(place / "pipe", 0o600)
        os.mknod(place / "device", stat.S_IFCHR | 0o660, os.makedev(10, 229))
        os.symlink("a" * 200, place / "long link")
        (place / ("n" * 255)).write_bytes(b"long name")
        (place / "größe").write_bytes(b"")
        with open(place / "sparse", "wb") as sparse:
            sparse.seek(3 << 20)
            sparse.write(b"middle")
            sparse.truncate(8 << 20)
        os.chown(place / "sparse", 1 << 22, 77)
        os.utime(place / "tagged", ns=(10**18, 10**18))
        assert dmgfs("shadow", "export", place, "--tar", layer).code == 0
        found = unpacked(sensitive_image, layer, tmp_path)
        assert list(differences(os.fsencode(found), os.fsencode(place))) == []


@pytest.mark.parametrize("seed", [11, 12])
def test_after_random_operations(tmp_path: Path, seed: int) -> None:
    layer, model = tmp_path / "layer.tar", tmp_path / "model"
    with mounted(WORKLOAD, tmp_path / "mnt", "--shadow", "ram:512M", "-o", "allow_other,dev,suid") as place:
        subprocess.run(["cp", "-a", place, model], check=True)
        randomops.exercise(place, model, seed, 1200)
        for folder, _, files in os.walk(place):
            for path in (os.path.join(folder, name) for name in (*files, ".")):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)  # tar has none
                    continue
                for name in os.listxattr(path, follow_symlinks=False):
                    if not os.getxattr(path, name, follow_symlinks=False):
                        os.removexattr(path, name, follow_symlinks=False)  # umoci's reader takes it for none
        assert dmgfs("shadow", "export", place, "--tar", layer).code == 0
        found = unpacked(WORKLOAD, layer, tmp_path)
        assert list(differences(os.fsencode(found), os.fsencode(place))) == []
    shutil.rmtree(tmp_path / "bundle")
    shutil.rmtree(model)
