"""info: golden facts of real images, and every image in no time and little memory."""

import json
import os
import plistlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.journal import Journal
from builders.partitions import HFS_GUID, Part, gpt_disk
from builders.sparse import write_bundle
from builders.udif import Piece, Table, build

from dmgfs.cli.report import human

MOST_MEMORY = 200 << 20


def facts(run, *arguments: object) -> dict[str, Any]:
    said = run("info", "--json", *arguments)
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def disk(name: str = "Built") -> bytes:
    builder = HfsPlusBuilder(name=name, hfsx=True, binary=True)
    builder.file(ROOT, "file", b"x")
    volume = bytes(builder.build().data)
    blocks = -(-len(volume) // 512)
    whole = gpt_disk([Part(HFS_GUID, 64, blocks, "disk image")], (blocks + 128) * 512)
    whole[64 * 512 : 64 * 512 + len(volume)] = volume
    return bytes(whole)


def test_of_a_built_image(run, tmp_path: Path) -> None:
    image = tmp_path / "image.dmg"
    content = disk()
    image.write_bytes(build([Table("whole disk", [Piece("bzip2", content), Piece("ignore", 8)])]).bytes)
    found = facts(run, image)
    assert found["container"]["kind"] == "UDIF"
    assert found["container"]["codecs"]["bzip2"]["runs"] == 1
    assert found["container"]["checksums"]["master"]["type"] == "CRC-32"
    assert found["disk_size"] == len(content) + 8 * 512
    assert found["stored_size"] == image.stat().st_size
    assert found["compression_ratio"] == round(found["disk_size"] / found["stored_size"], 2)
    assert found["map"] == {"scheme": "GPT", "block_size": 512}
    [partition] = found["partitions"]
    assert (partition["type"], partition["name"], partition["start"]) == ("Apple_HFS", "disk image", 64 * 512)
    volume = partition["volume"]
    assert (volume["kind"], volume["name"], volume["case_sensitive"]) == ("HFSX", "Built", True)
    assert (volume["files"], volume["folders"], volume["journal"]) == (1, 0, None)
    assert volume["id"] == "0123456789abcdef"
    assert volume["encodings"] == [0]
    assert volume["attributes"] == ["unmounted cleanly"]


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
def test_of_a_block_device(run, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(disk())
    made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop devices here: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        found = facts(run, device)
        assert (found["stored_size"], found["disk_size"]) == (image.stat().st_size, image.stat().st_size)
        assert f"{human(image.stat().st_size)} stored".encode() in run("info", device).out
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_lines_for_people(run, tmp_path: Path) -> None:
    image = tmp_path / "image.dmg"
    image.write_bytes(build([Table("whole disk", [Piece("zlib", disk("a\x1b[31mb"))])]).bytes)
    text = run("info", image).out.decode()
    assert 'partition 1   Apple_HFS "disk image", ' in text
    assert 'volume        HFSX "a\\x1b[31mb", case-sensitive' in text
    assert "codec         zlib: 1 runs" in text
    assert "checksums     data fork CRC-32, master CRC-32, 1 of 1 block tables" in text


def test_of_an_encrypted_image_in_an_image(run, tmp_path: Path) -> None:
    builder = HfsPlusBuilder(name="Outer")
    builder.file(ROOT, "inner.dmg", encrypt_v2(disk()))
    (tmp_path / "outer.img").write_bytes(builder.build().data)
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    path = f"{tmp_path}/outer.img//inner.dmg"
    found = facts(run, path, "--passphrase-file", tmp_path / "passphrase")
    assert found["container"]["encryption"]
    assert found["partitions"][0]["volume"]["name"] == "Built"
    assert found["outer"]["partitions"][0]["volume"]["name"] == "Outer"
    text = run("info", path, "--passphrase-file", tmp_path / "passphrase").out.decode()
    assert "encryption    " in text
    assert f"inside {tmp_path}/outer.img:" in text
    assert '  volume        HFS+ "Outer"' in text


def test_of_a_volume_whose_journal_waits(run, tmp_path: Path) -> None:
    built = HfsPlusBuilder(attributes=0x2000).build(spare_blocks=41)
    first = len(built.data) // 512 - 43
    Journal((first + 1) * 512, 39 * 512, [[((first + 40) * 512, b"x" * 512)]]).write(built.data, first * 512)
    for header in (built.header, len(built.data) - 1024):
        built.patch(header + 12, ">I", first)
    image = tmp_path / "image"
    image.write_bytes(built.data)
    text = run("info", image).out.decode()
    assert "journal       replayed: 1 transaction applied in memory (512 bytes); not unmounted cleanly\n" in text
    text = run("info", "--no-replay", image).out.decode()
    assert (
        "journal       dirty: transactions wait in the journal and are not applied; not unmounted cleanly\n" in text
    )


def test_encodings_have_names(run, tmp_path: Path) -> None:
    built = HfsPlusBuilder().build()
    built.patch(built.header + 72, ">Q", 1 << 0 | 1 << 1 | 1 << 49 | 1 << 60)
    image = tmp_path / "image"
    image.write_bytes(built.data)
    assert "encodings     Roman, Japanese, Farsi, 60\n" in run("info", image).out.decode()


def test_of_a_damaged_volume(run, tmp_path: Path) -> None:
    builder = HfsPlusBuilder()
    built = builder.build()
    built.patch(built.catalog.node(0) + 14 + 18, ">H", 3)  # node size
    image = tmp_path / "image"
    image.write_bytes(built.data)
    [partition] = facts(run, image)["partitions"]
    assert "volume" not in partition
    assert "node size 3" in partition["problem"]
    assert "node size 3" in run("info", image).out.decode()


GOLDEN = {
    "keramics_keramics__hfsplus_lzfse.dmg": {
        "kind": "UDIF", "codecs": {"lzfse": 8, "ignore": 4, "zero": 2}, "scheme": "GPT", "volume": "hfsplus_test",
        "files": 16, "folders": 4, "journal": None, "case_sensitive": False,
    },
    "sparkle-project_Sparkle__SparkleTestCodeSignApp.dmg": {
        "kind": "UDIF", "codecs": {"bzip2": 8, "ignore": 2}, "scheme": "APM", "volume": "Sparkle Test App",
        "files": 161, "folders": 73, "journal": None, "case_sensitive": False,
    },
    "google_syzkaller__syz_mount_image_hfsplus_3.img": {
        "kind": "raw", "codecs": {}, "scheme": "none", "volume": "untitled",
        "files": 7, "folders": 2, "journal": None, "case_sensitive": True,
    },
    "autopkg_autopkg__Test.dmg": {
        "kind": "UDIF", "codecs": {"zlib": 8, "ignore": 4, "zero": 2}, "scheme": "GPT", "volume": "resources",
        "files": 3, "folders": 4, "journal": "clean", "case_sensitive": False,
    },
}  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_facts(run, corpus_image, name: str) -> None:
    found = facts(run, corpus_image(name))
    [volume] = [one["volume"] for one in found["partitions"] if "volume" in one]
    codecs = {codec: tally["runs"] for codec, tally in found["container"].get("codecs", {}).items()}
    assert GOLDEN[name] == {
        "kind": found["container"]["kind"],
        "codecs": {codec: runs for codec, runs in codecs.items() if codec != "comment"},
        "scheme": found["map"]["scheme"],
        "volume": volume["name"],
        **{key: volume[key] for key in ("files", "folders", "journal", "case_sensitive")},
    }


# VmHWM, because getrusage would count what pytest had before it forked.
RUN_ALL = r"""
import io, json, re, sys, time
from contextlib import redirect_stderr, redirect_stdout
from dmgfs.cli import main

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(json.loads(line))
    memory = int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) << 10
    print(json.dumps([code, out.getvalue(), err.getvalue(), time.process_time() - started, memory]))
"""


@pytest.mark.corpus
def test_every_image_in_a_second_and_little_memory(corpus_index, corpus_image, tmp_path: Path) -> None:
    """All in one process: what it takes at most is a bound for every single image."""
    calls = []
    for number, entry in enumerate(corpus_index):
        options = []
        if entry.get("password"):
            secret = tmp_path / f"passphrase{number}"
            secret.write_text(entry["password"])
            options = ["--passphrase-file", str(secret)]
        calls.append(json.dumps(["info", str(corpus_image(entry["name"])), *options]))
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input="\n".join(calls),
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,  # no terminal to ask for a passphrase on
    )
    for entry, line in zip(corpus_index, done.stdout.splitlines(), strict=True):
        code, out, err, seconds, memory = json.loads(line)
        assert code in (0, 65, 66, 77), (entry["name"], err)
        assert (len(err.splitlines()), bool(out)) == ((0, True) if code == 0 else (1, False)), (entry["name"], err)
        assert seconds < 1, (entry["name"], seconds)
        assert memory < MOST_MEMORY, (entry["name"], memory >> 20)


def test_of_a_netboot_folder(run, tmp_path: Path) -> None:
    folder = tmp_path / "Install.nbi"
    (folder / "i386").mkdir(parents=True)
    (folder / "i386/booter").write_bytes(b"boot")
    (folder / "System.dmg").write_bytes(build([Table("whole disk", [Piece("zlib", disk())])]).bytes)
    info = {"Name": "Install", "RootPath": "System.dmg", "Type": "HTTP", "Architectures": ["i386", "x86_64"]}
    (folder / "NBImageInfo.plist").write_bytes(plistlib.dumps(info))
    found = facts(run, folder)
    assert found["container"]["netboot"]["Name"] == "Install"
    assert found["partitions"][0]["volume"]["name"] == "Built"
    text = run("info", folder).out.decode()
    assert "netboot       Name Install" in text
    assert "netboot file  boot file i386/booter: 4 B" in text
    assert "boot file x86_64/booter: missing" in text
    assert "warning: NetBoot folder: the boot file 'x86_64/booter' is missing" in text
    assert run("cat", folder, "file").out == b"x"


def test_of_a_sparse_bundle(run, tmp_path: Path) -> None:
    write_bundle(tmp_path / "disk.sparsebundle", disk(), band=8192)
    found = facts(run, tmp_path / "disk.sparsebundle")
    assert found["container"]["kind"] == "sparse bundle"
    assert found["stored_size"] >= 8192
    assert "band size     8192" in run("info", tmp_path / "disk.sparsebundle").out.decode()
