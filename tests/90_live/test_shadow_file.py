"""A shadow file that nobody uses, and one that is saved from a live mount."""

import os
import subprocess
import sys

import pytest
from exercise.shadowed import change, facts, refused, shadow, start, unmount

pytestmark = pytest.mark.kernel


def test_a_file_that_nobody_uses_tells_the_same(image, sensitive_image, place, tmp_path):
    """Without a mount, and without what a mount needs: the same lines, the same bytes."""
    file, live, still = tmp_path / "a.shadow", tmp_path / "live.tar", tmp_path / "still.tar"
    start(image, place, "--shadow", file)
    change(place)
    os.unlink(place / "damaged link")
    os.link(place / "first name", place / "third name")
    (place / b"odd \xff\n".decode("utf-8", "surrogateescape")).symlink_to("x")
    lines, words = shadow("diff", place, "--json"), shadow("diff", place)
    shadow("export", place, "--tar", live)
    assert "another process is using it" in refused("diff", file, "--image", image)
    unmount(place)
    before = file.read_bytes()
    assert shadow("diff", file, "--image", image, "--json") == lines
    assert shadow("diff", file, "--image", image) == words
    shadow("export", file, "--image", image, "--tar", still)
    assert still.read_bytes() == live.read_bytes()
    assert "--image IMAGE" in refused("diff", file)
    still.unlink()
    assert "belongs to another image" in refused("export", file, "--image", sensitive_image, "--tar", still)
    assert not still.exists()
    assert shadow("diff", file, "--image", sensitive_image, "--force-base") != ""
    assert "left alone" in refused("diff", image, "--image", image)
    assert "No such file" in refused("diff", tmp_path / "none", "--image", image)
    assert file.read_bytes() == before
    program = "import sys; from dmgfs.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program, "shadow", "diff", file, "--image", image],
        capture_output=True,
        text=True,
        check=True,
        errors="surrogateescape",
    )
    assert {"overlay.file", "dmgfs.image"} <= set(said.stdout.split())
    assert not {"pyfuse3", "trio"} & set(said.stdout.split())


def test_a_shadow_in_memory_is_saved_live_and_mounted_from_the_file(image, place, tmp_path):
    file = tmp_path / "saved.shadow"
    start(image, place, "--shadow", "ram:64M")
    change(place)
    (place / "sparse").write_bytes(b"")
    os.truncate(place / "sparse", 1 << 30)
    with open(place / "sparse", "r+b") as sparse:
        sparse.seek(1 << 29)
        sparse.write(b"middle" * 10_000)
    saved = {name: fact for name, fact in facts(place).items() if name != "sparse"}
    shadow("snapshot", "create", place, "before")
    os.unlink(place / "Renamed" / "new")
    shadow("save", place, file)
    (place / "afterwards").write_bytes(b"")
    assert "exists already" in refused("save", place, file)
    assert "clean" in shadow("check", file)
    assert file.stat().st_size < 2 << 20
    assert file.stat().st_mode & 0o777 == 0o600
    unmount(place)
    start(image, place, "--shadow", file)
    assert not (place / "Renamed" / "new").exists()
    shadow("snapshot", "rollback", place, "before")
    assert {name: fact for name, fact in facts(place).items() if name != "sparse"} == saved
    with open(place / "sparse", "rb") as sparse:
        sparse.seek(1 << 29)
        assert sparse.read(60_001) == b"middle" * 10_000 + b"\0"
    assert sorted(tmp_path.glob("*.partial")) == []
