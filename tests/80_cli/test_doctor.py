"""dmgfs doctor says what is so, and what to do where it is not."""

import json
import os

import pytest

from dmgfs.fuse import conditions, hardening


@pytest.fixture(autouse=True)
def _harmless(monkeypatch):
    """This process goes on afterwards: no timer, no promises to the kernel."""
    for name in ("spare_from_oom", "flush_io", "keep_continuing"):
        monkeypatch.setattr(hardening, name, lambda: hardening.Held(True, "tried"))


def test_lines_and_json_say_the_same(run):
    said = run("doctor")
    lines = said.out.decode().splitlines()
    found = json.loads(run("doctor", "--json").out)
    assert len(lines) == len(found) + 1
    for line, condition in zip(lines, found, strict=False):
        assert line.startswith("yes " if condition["holds"] else "no  ")
        assert condition["name"] in line
        assert condition["holds"] or condition["advice"]
        assert condition["holds"] or condition["advice"] in line
    names = {condition["name"] for condition in found}
    assert {"FUSE device", "mounting", "kernel: overlay", "kernel: loop", "-o allow_other"} <= names
    assert {"live root: memory locked", "live root: the mark @", "live root: CAP_SYS_RESOURCE"} <= names
    assert said.code == (0 if all(one["holds"] for one in found if one["needed"]) else 71)


def test_without_the_device_no_mount_is_possible(run, monkeypatch, tmp_path):
    monkeypatch.setattr(conditions, "DEVICE", str(tmp_path / "fuse"))
    said = run("doctor")
    assert said.code == 71
    assert b"no  FUSE device" in said.out
    assert b"modprobe fuse" in said.out
    assert b"no mount is possible here" in said.out


def test_an_ordinary_user_needs_the_helper(run, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(conditions.shutil, "which", lambda name: None)
    monkeypatch.setattr(conditions, "CONFIGURATION", str(tmp_path / "fuse.conf"))
    said = run("doctor")
    assert said.code == 71
    assert b"install fuse3" in said.out
    assert b"no  -o allow_other" in said.out
    helper = tmp_path / "fusermount3"
    helper.touch(0o755)
    monkeypatch.setattr(conditions.shutil, "which", lambda name: str(helper))
    assert b"is not setuid root" in run("doctor").out
    (tmp_path / "fuse.conf").write_text("# comment\nuser_allow_other\n")
    assert b"yes -o allow_other" in run("doctor").out


def test_what_the_kernel_has(monkeypatch, tmp_path):
    assert conditions._feature("nosuchthing") == ""
    assert conditions._feature("proc") == "there"
