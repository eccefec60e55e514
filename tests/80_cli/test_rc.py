"""Jobs, units and scripts for init systems, judged by who reads them; and the choice of a shadow."""

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.cli import candidates
from dmgfs.cli.candidates import choose, ordered, parse_auto
from dmgfs.cli.options import Shadow, WrongUsage, parse_shadow

SCRIPT = Path(__file__).parents[2] / "scripts" / "rc.live"


def written(run, style: str, *more: str) -> bytes:
    said = run("rc", "--style", style, *more)
    assert (said.code, said.err) == (0, "")
    return said.out


def test_the_launchd_job(run):
    job = plistlib.loads(written(run, "launchd", "--script", "/etc/a b & c"))
    assert job["ProgramArguments"] == ["/bin/sh", "/etc/a b & c", "start", "/etc/dmgfs/rc.live.conf"]
    assert job["RunAtLoad"] is True
    assert job["Label"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_systemd_unit(run, tmp_path):
    unit = tmp_path / "dmgfs-live.service"
    unit.write_bytes(written(run, "systemd", "--script", str(SCRIPT)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    known = [
        line for line in done.stderr.splitlines() if str(unit.name) in line and "SurviveFinalKillSignal" not in line
    ]
    assert known == []
    assert run("rc", "--style", "systemd", "--script", "/etc/a b").code == 64


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_system_v_script(run, tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    fake = tmp_path / "rc live"
    fake.write_text('echo "$1 $2"\n')
    script = tmp_path / "dmgfs-live"
    script.write_bytes(written(run, "sysv", "--script", str(fake), "--config", "/etc/x's"))
    subprocess.run([shell, "-n", script], check=True)
    for words, out in ((["start"], "start /etc/x's\n"), (["restart"], "stop /etc/x's\nstart /etc/x's\n")):
        assert subprocess.run([shell, script, *words], capture_output=True, text=True, check=True).stdout == out
    assert subprocess.run([shell, script], capture_output=True, check=False).returncode == 64


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_rc_live_is_a_sound_script(shell):
    if shutil.which(shell):
        subprocess.run([shell, "-n", SCRIPT], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


# -- which shadow -------------------------------------------------------------------------------------------------------

LOCAL, SHARE, OTHER = "/disk/shadow", "/net/shadow", "/disk/other"


def paths(text: str) -> list[str]:
    rule, shadows = parse_auto(text)
    return [one.path or one.kind for one in ordered(rule, shadows, lambda path: path.startswith("/net/"))]


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        ("", [SHARE, LOCAL, OTHER, "ram"]),
        ("-NETWORK-,", [SHARE, LOCAL, OTHER, "ram"]),
        ("-NETWORK_ONLY-,", [SHARE, "ram"]),
        ("-LOCAL-,", [LOCAL, OTHER, SHARE, "ram"]),
        ("-LOCAL_ONLY-,", [LOCAL, OTHER, "ram"]),
    ],
)
def test_rules(rule, order):
    assert paths(f"auto:{rule}{SHARE},{LOCAL},{OTHER},ram:64M") == order


def test_commas_in_names():
    assert paths("auto:/a\\,b/c,./ram") == ["/a,b/c", f"{Path.cwd()}/ram"]


@pytest.mark.parametrize(
    "text",
    ["auto:", "auto:,", "auto:/a,,/b", "auto:-NETWORK-", "auto:-NET-,/a", "auto:ram,/a", "auto:/a,none", "auto:word"],
)
def test_no_choices(text):
    with pytest.raises(WrongUsage):
        parse_auto(text)


def test_memory_may_be_compressed():
    _, [file, memory] = parse_auto("auto:/a/b,ram:64M,compress=zstd")
    assert (file.kind, memory.kind, memory.budget, memory.compress) == ("file", "ram", 64 << 20, "zstd")


def test_too_many():
    with pytest.raises(WrongUsage, match="at most 32"):
        parse_auto("auto:" + ",".join(["/a"] * 33))


@given(st.text(alphabet="/a,-NETWORKLC_ram:\\0", max_size=30))
def test_any_choice_is_one_or_wrong_usage(text):
    try:
        rule, shadows = parse_auto(f"auto:{text}")
    except WrongUsage:
        return
    assert rule in ("", *candidates.RULES)
    assert shadows


def test_a_choice_is_no_file_of_that_name():
    with pytest.raises(WrongUsage, match="cannot be made here"):
        parse_shadow("auto:/a/b,/c")


def test_a_missing_folder_is_made_for_its_owner_alone_one_level_of_it(tmp_path):
    found = choose(f"auto:{tmp_path}/new/shadow,{tmp_path}/x/y/shadow,ram:64M", 0)
    assert (found.kind, [one.kind for one in found.others]) == ("auto", ["file", "file", "ram"])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "x").exists()


def test_a_late_folder_is_waited_for(tmp_path, monkeypatch):
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            (tmp_path / "disk").mkdir()

    monkeypatch.setattr(candidates.time, "sleep", nap)
    found = choose(f"auto:{tmp_path}/disk/folder/shadow,ram:64M", 30)
    assert len(naps) == 3
    assert found.others[0] == Shadow("file", path=f"{tmp_path}/disk/folder/shadow")


def test_network_file_systems_are_known(monkeypatch):
    from dmgfs.fuse import mountpoint

    table = [("/", "ext4"), ("/net", "nfs4"), ("/net/disk", "xfs"), ("/ssh", "fuse.sshfs")]
    monkeypatch.setattr(
        mountpoint, "mounts", lambda: [mountpoint.Mount("0:1", path, kind, "", "") for path, kind in table]
    )
    assert [candidates.on_network(path) for path in ("/x", "/net/a/b", "/net/disk/a", "/network/a", "/ssh/a")] == [
        False, True, False, False, True
    ]  # fmt: skip
