"""verify says what is damaged, and only that."""

import json
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build


def volume() -> HfsPlusBuilder:
    builder = HfsPlusBuilder(catalog_node_size=1024, records_per_node=4)
    for number in range(20):
        builder.file(ROOT, f"file {number:02}", b"content" * number, attributes={"com.example": b"value"})
    return builder


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def findings(run, *arguments: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run("verify", "--json", *arguments).out)
    return found


def test_a_sound_image(run, tmp_path: Path) -> None:
    data = padded(bytes(volume().build().data))
    image = write(
        tmp_path / "image.dmg", build([Table("whole disk", [Piece("zlib", data), Piece("ignore", 8)])]).bytes
    )
    said = run("verify", "--deep", image)
    assert said.code == 0
    lines = said.out.decode().splitlines()
    assert [line[:4] for line in lines] == ["ok  "] * (len(lines) - 1) + ["noth"]
    assert any(line.startswith("ok  data fork, CRC-32") for line in lines)
    assert any("HFS+ catalog: 42 records in order" in line for line in lines)
    assert any("20 files, 1 folders, 0 others" in line for line in lines)


def test_a_changed_byte_in_the_data_fork(run, tmp_path: Path) -> None:
    data = bytearray(build([Table("whole disk", [Piece("raw", bytes(512) * 20)])]).bytes)
    data[700] ^= 1
    image = write(tmp_path / "image.dmg", data)
    found = {one["what"]: one for one in findings(run, image)}
    assert found["data fork"]["ok"] is False
    assert found["data fork"]["expected"] != found["data fork"]["actual"]
    assert run("verify", image).code == 65


def test_a_run_that_does_not_decode(run, tmp_path: Path) -> None:
    pieces = [Piece("zlib", bytes(4096)), Piece("zlib", bytes(4096), packed=b"nonsense")]
    image = write(tmp_path / "image.dmg", build([Table("whole disk", pieces)]).bytes)
    bad = [one for one in findings(run, image) if one["ok"] is False]
    assert len(bad) == 1
    assert "run 1" in str(bad[0]["why"])


def test_runs_without_any_checksum_are_decoded_all_the_same(run, tmp_path: Path) -> None:
    good, broken = Piece("zlib", bytes(4096)), Piece("zlib", bytes(4096), packed=b"nonsense")
    for pieces, code in (([good, good], 0), ([good, broken], 65)):
        image = write(tmp_path / "image.dmg", build([Table("whole disk", pieces)], checksum_type=0).bytes)
        assert run("verify", image).code == code


def test_a_raw_image_is_read(run, tmp_path: Path) -> None:
    assert b"all 4.0 KiB can be read" in run("verify", write(tmp_path / "raw", bytes(4096))).out


def test_deep_finds_a_damaged_node_of_the_catalog(run, tmp_path: Path) -> None:
    built = volume().build()
    built.patch(built.catalog.node(3) + 8, ">b", 5)
    image = write(tmp_path / "image", built.data)
    assert run("verify", image).code == 0
    said = run("verify", "--deep", image)
    assert said.code == 65
    assert b"BAD HFS+ volume 'Test' on partition 0: HFS+ catalog: node 3" in said.out


def test_deep_finds_a_wrong_count_of_records(run, tmp_path: Path) -> None:
    built = volume().build()
    built.patch(built.catalog.node(0) + 14 + 6, ">I", 99)
    said = run("verify", "--deep", write(tmp_path / "image", built.data))
    assert (said.code, b"99 records claimed, 42 are there" in said.out) == (65, True)


def test_deep_finds_a_leaf_that_the_chain_leaves_out(run, tmp_path: Path) -> None:
    built = volume().build()
    second = built.get(built.catalog.node(1), ">I")
    built.patch(built.catalog.node(1), ">I", built.get(built.catalog.node(second), ">I"))
    said = run("verify", "--deep", write(tmp_path / "image", built.data))
    assert (said.code, b"the index says that" in said.out) == (65, True)


@pytest.mark.parametrize("what", ["file", "attribute", "link"])
def test_deep_finds_an_object_that_cannot_be_read(run, tmp_path: Path, what: str) -> None:
    builder = volume()
    if what == "file":
        builder.file(ROOT, "bad", data_fork=bytes(7) + b"\x64" + bytes(72))
    elif what == "attribute":
        cnid = builder.file(ROOT, "bad", b"x")
        builder.raw_attribute(cnid, "com.bad", 0, bytes.fromhex("00000010") + bytes(8) + b"\0\0\xff\xff")
    else:
        builder.symlink(ROOT, "bad", b"")
    image = write(tmp_path / "image", builder.build().data)
    bad = [one for one in findings(run, "--deep", image) if one["ok"] is False]
    assert [str(one["what"]).rpartition(": ")[2] for one in bad] == ["/bad"]


def test_deep_says_what_it_does_not_check(run, tmp_path: Path) -> None:
    said = run("verify", "--deep", write(tmp_path / "apfs", bytes(32) + b"NXSB" + bytes(4060)))
    assert said.code == 0
    assert b"?   partition 0: APFS: its contents are not checked" in said.out


def test_deep_goes_on_behind_a_tree_whose_root_is_gone(run, tmp_path: Path) -> None:
    built = volume().build()
    assert built.attributes is not None
    root = built.get(built.attributes.node(0) + 14 + 2, ">I")
    built.patch(built.attributes.node(root) + 8, ">b", 5)
    said = run("verify", "--deep", write(tmp_path / "image", built.data))
    assert said.code == 65
    assert b"BAD HFS+ volume 'Test' on partition 0: HFS+ attributes: node" in said.out
    assert b"HFS+ catalog: 42 records in order" in said.out
