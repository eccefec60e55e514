"""The changes as a layer: over a copy of the image it is the mount."""

import os
import shutil
import subprocess
import tarfile

import pytest
from exercise.shadowed import change, facts, refused, shadow, start

pytestmark = pytest.mark.kernel


def test_a_layer_over_a_copy_of_the_image_is_the_mount(sensitive_image, place, tmp_path):
    """Read with Python's tarfile, unpacked with GNU tar; whiteouts applied as container tools do."""
    copy = tmp_path / "copy"
    start(sensitive_image, place, "--shadow", "ram:8M")
    shutil.copytree(
        place, copy, symlinks=True, ignore=lambda _, names: [name for name in names if name == "damaged link"]
    )
    os.unlink(copy / "Folder" / "second name")
    os.link(copy / "first name", copy / "Folder" / "second name")
    for name in ("program", "Folder", "."):
        os.chown(copy / name, 501, 20)
    change(place)
    os.unlink(place / "damaged link")
    layer = tmp_path / "layer.tar"
    shadow("export", place, "--tar", layer)
    assert layer.stat().st_mode & 0o777 == 0o600
    piped = subprocess.run(
        [shutil.which("dmgfs") or "dmgfs", "shadow", "export", place, "--tar", "-"], capture_output=True, check=True
    )
    assert len(piped.stdout) == layer.stat().st_size
    with tarfile.open(layer) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members[".wh.ReadMe"].size == 0
    assert ".wh.Folder" in members
    assert members["Renamed/new"].size == 20_000
    assert members["tagged"].pax_headers["SCHILY.xattr.user.mine"] == "\0value"
    for member in [one for one in members.values() if os.path.basename(one.name).startswith(".wh.")]:
        gone = copy / os.path.dirname(member.name) / os.path.basename(member.name)[4:]
        if member.name == ".wh.damaged link":
            continue
        assert os.path.lexists(gone)
        shutil.rmtree(gone) if gone.is_dir() else os.unlink(gone)
    subprocess.run(
        ["tar", "-xpf", layer, "-C", copy, "--xattrs", "--xattrs-include=*", "--exclude=.wh.*"],
        check=True,
        capture_output=True,
    )
    got, wanted = facts(copy), facts(place)
    assert got.keys() == wanted.keys()
    for path in members:
        if path in wanted and not path.endswith("damaged link"):
            assert got[path] == wanted[path], path
    assert os.getxattr(copy / "tagged", "user.mine") == b"\0value"


def test_a_reader_of_the_export_that_goes_away(image, place):
    start(image, place, "--shadow", "ram:64M")
    (place / "big").write_bytes(os.urandom(16 << 20))
    exporting = subprocess.Popen(
        [shutil.which("dmgfs") or "dmgfs", "shadow", "export", place, "--tar", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert exporting.stdout is not None
    exporting.stdout.read(1000)
    exporting.stdout.close()
    assert exporting.wait(30) != 0
    exporting.stderr.close()
    assert shadow("diff", place) != ""
    os.unlink(place / "big")


def test_an_export_into_the_mount_itself(image, place):
    start(image, place, "--shadow", "ram:8M")
    assert "lies in the mount itself" in refused("export", place, "--tar", place / "layer.tar")
