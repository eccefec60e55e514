"""How large a RAM disk is, and lists of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.cli import ramplan
from dmgfs.cli.options import WrongUsage
from dmgfs.cli.ramplan import PRESETS, Folder, RamDisk, beneath, parse_plan, parse_ram_size


@pytest.fixture(autouse=True)
def _one_gigabyte(monkeypatch):
    monkeypatch.setattr(ramplan, "memory_size", lambda: 1 << 30)


SIZES = {
    "1024": 512 << 10,
    "ram://1024": 512 << 10,
    "2048": 1 << 20,
    "128": 64 << 10,
    "512K": 512 << 10,
    "2M": 2 << 20,
    "1GiB": 1 << 30,
    "50%": 512 << 20,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text, size):
    assert parse_ram_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "ram://", "ram://1M", "ram:1024", "ram://-1", "127", "10K", "0%", "101%", "x%", "1x", "9" * 30, "٣٠٠٠"],
)
def test_no_sizes(text):
    with pytest.raises(WrongUsage):
        parse_ram_size(text)


def test_a_list():
    text = "# what rc.cdrom covers\n\n/var/run 1024\n/a folder/with spaces\t2M\nmkdir 1777 /var/db/m d s\n"
    assert parse_plan(text, "list") == [
        RamDisk("/var/run", 512 << 10),
        RamDisk("/a folder/with spaces", 2 << 20),
        Folder("/var/db/m d s", 0o1777),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no RAM disk in it"),
        ("mkdir 755 /a", "there is no RAM disk in it"),
        ("/a 1024\n/b", "list:2: write DIR SIZE"),
        ("/a 1024\nb 1024", "list:2: b: the directories of a list are absolute"),
        ("/a 10", "list:1: 10: 5120 bytes"),
        ("mkdir 9 /a", "list:1: write mkdir MODE DIR"),
        ("/a 1024\n" * 300, "at most 256"),
    ],
)
def test_no_lists(text, said):
    with pytest.raises(WrongUsage, match=said):
        parse_plan(text, "list")


@given(st.text(alphabet="/ab #\n\tmkdir1024Kx", max_size=60))
def test_any_text_is_a_list_or_wrong_usage(text):
    try:
        assert all(step.directory.startswith("/") for step in parse_plan(text, "list"))
    except WrongUsage:
        pass


def test_what_rc_cdrom_covers():
    disks = [step for step in parse_plan(PRESETS["rc.cdrom"], "rc.cdrom") if isinstance(step, RamDisk)]
    assert {disk.directory: disk.size // 512 for disk in disks} == {
        "/Volumes": 1024,
        "/var/tmp": 1024,
        "/var/run": 1024,
        "/var/db": 1024,
        "/Library/Preferences": 1024,
        "/Library/ColorSync/Profiles/Displays": 2048,
    }


def test_a_list_for_another_root():
    assert beneath([RamDisk("/var/run", 1), Folder("/x", 0o700)], "/live") == [
        RamDisk("/live/var/run", 1),
        Folder("/live/x", 0o700),
    ]
