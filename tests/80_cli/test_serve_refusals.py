"""`dmgfs serve`: wrong words, no nbdkit, shadows of something else: one line each, and its exit code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import rangeserver
from exercise.here import here
from exercise.nbd import needs_nbdkit, serving

# -- what cannot be had ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        ["--nbd", "unix:"],
        ["--nbd", "host:port"],
        ["--nbd", "/a/path"],
        ["--nbd", ":70000"],
        ["--per-client"],
        ["--shadow", "ram,compress=zstd"],
        ["--shadow", "nowhere/"],
        ["--shadow", "ram", "--read-only"],
        ["--shadow", "ram", "--recycle"],
        ["--shadow", "ram", "--shadow-limit", "1G"],
        ["--shadow", "ram", "--second-client", "kill"],
        ["--known-clients"],
        ["--force-base"],
        ["--limit", "-1"],
        ["--limit", "many"],
        ["--tls", "require"],
        ["--tls-verify-peer"],
    ],
)
def test_wrong_words_are_64(disk, tmp_path, wrong):
    ended = here("serve", disk, *(["--nbd", f"unix:{tmp_path}/socket"] if "--nbd" not in wrong else []), *wrong)
    assert ended.code == 64
    [line] = ended.err.splitlines()
    assert line.startswith("dmgfs: serve: ")
    assert not (tmp_path / "socket").exists()


@needs_nbdkit
def test_exports_that_are_not_there_are_64(disk, tmp_path):
    for export in ("root=disk0s9", "a/b", "=disk"):
        ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket", "--export", export)
        assert ended.code == 64


def nbdkit_that(folder: Path, script: str) -> None:
    (folder / "nbdkit").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nbdkit").chmod(0o755)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            "echo 'cannot open plugin python' >&2; exit 1",
            "no Python plug-in (cannot open plugin python); install it: ",
        ),
        ("echo python_version=3.2.1", f"nbdkit has Python 3.2 inside, and dmgfs runs on 3.{sys.version_info[1]}"),
    ],
)
def test_an_nbdkit_that_cannot_take_us_in_is_69(disk, tmp_path, monkeypatch, script, text):
    nbdkit_that(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket")
    assert ended.code == 69
    assert text in ended.err
    assert len(ended.err.splitlines()) == 1


def test_no_nbdkit_is_69_with_what_to_install(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *words, **more: None)
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket")
    assert ended.code == 69
    assert "apt-get install nbdkit nbdkit-plugin-python" in ended.err


def test_a_server_that_nbdkit_does_not_begin_is_71_with_its_word(disk, tmp_path):
    nbdkit_that(
        tmp_path,
        f"[ $1 != --foreground ] && echo python_version=3.{sys.version_info[1]} && exit; echo why >&2; exit 1",
    )
    done = subprocess.run(
        [sys.executable, "-m", "dmgfs", "serve", disk, "--nbd", f"unix:{tmp_path}/socket"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 71
    assert done.stderr == "why\ndmgfs: serve: nbdkit did not start\n"
    assert not (tmp_path / "socket").exists()


@needs_nbdkit
def test_a_shadow_of_another_disk_is_78(disk, tmp_path):
    (tmp_path / "other").write_bytes(bytes(1 << 20))
    with serving(tmp_path / "other", tmp_path, "--shadow", tmp_path / "shadow"):
        pass
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket", "--shadow", tmp_path / "shadow")
    assert ended.code == 78


@needs_nbdkit
def test_a_damaged_shadow_is_76_and_an_address_that_cannot_be_had_74(disk, tmp_path):
    shadow = tmp_path / "shadow"
    with serving(disk, tmp_path, "--shadow", shadow) as server, server.connect() as client:
        client.write(5000, b"written")
    shadow.write_bytes(shadow.read_bytes()[: 3 * 4096])
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket", "--shadow", shadow)
    assert ended.code == 76
    assert ended.err.startswith(f"dmgfs: {shadow}: ")
    for address, code in ((f"unix:{tmp_path}/{'x' * 200}", 74), (f"unix:{tmp_path}/no/socket", 66)):
        ended = here("serve", disk, "--nbd", address)
        assert ended.code == code
        assert len(ended.err.splitlines()) == 1


@needs_nbdkit
def test_an_image_behind_a_url(made, raw, tmp_path):
    options = ("--network-cache", f"{tmp_path}/cache:64M", "--shadow", tmp_path / "shadow")
    with rangeserver.serving((made / "disk.dmg").read_bytes()) as origin:
        url = origin.url.replace("://", "://me:secret@")
        with serving(url, tmp_path, *options) as server:
            assert b"secret" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
            with server.connect() as client:
                assert client.all() == raw
                client.write(100, b"kept here")
            kept = sum(file.stat().st_blocks * 512 for file in (tmp_path / "cache").rglob("*"))
            assert kept > (made / "disk.dmg").stat().st_size  # all of it, not what the command looked at
            assert server.stop() == 0
        with serving(url, tmp_path, *options) as server, server.connect() as client:
            assert client.read(100, 9) == b"kept here"
