"""Sparse bundles: bands present, missing and short, plain and encrypted; hostile folders (links, FIFOs, property lists)."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, Keys, header_v2, passphrase_blob, trailer_v1
from builders.sparse import info_plist, write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, open_container, sparsebundle
from dmgfs.errors import (
    CorruptImage,
    DmgError,
    NotAnImage,
    OutOfRange,
    PassphraseNeeded,
    Unsupported,
    WrongPassphrase,
)
from dmgfs.source import Cold, forbid_blocking

BAND = 8192
DISK = hashlib.shake_128(b"bundle").digest(5 * BAND + 512)


def opened(folder: Path, passphrase: bytes = PASSPHRASE) -> Container:
    return open_container(folder, passphrase=lambda: passphrase, cache=ChunkCache(1 << 20))


def whole(folder: Path) -> bytes:
    container = opened(folder)
    try:
        return bytes(container.disk.read(0, container.disk.size))
    finally:
        container.close()


@pytest.mark.corpus
def test_foreign_bundle(corpus_image) -> None:
    digest = hashlib.sha256(whole(corpus_image("SecurityRonin_dmg-forensic__synthetic.sparsebundle"))).hexdigest()
    assert digest == "b9622fe907e592e8a2bed0f722ec6da33e3eed382a02864c4b7a6d2891dd4c36"


def test_bands_present_missing_short_and_long(tmp_path: Path) -> None:
    def store(number: int, data: bytes) -> bytes | None:
        return {0: data, 1: None, 2: data[:1000], 3: data + b"beyond the band", 4: b""}.get(number, data)

    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND, store=store)
    expected = bytearray(DISK)
    expected[BAND : 2 * BAND] = bytes(BAND)
    expected[2 * BAND + 1000 : 3 * BAND] = bytes(BAND - 1000)
    expected[4 * BAND : 5 * BAND] = bytes(BAND)
    assert whole(folder) == expected


def test_names_of_bands_are_hexadecimal(tmp_path: Path) -> None:
    disk = hashlib.shake_128(b"hex").digest(40 * 512)
    folder = write_bundle(tmp_path / "a.sparsebundle", disk, band=512)
    assert (folder / "bands" / "1f").exists()
    assert whole(folder) == disk


@pytest.mark.parametrize("inside", ["Info.plist", "Info.bckup", "token"])
def test_a_file_of_the_bundle_opens_the_bundle(tmp_path: Path, inside: str) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    assert sparsebundle.recognise_bundle(folder / inside)
    assert whole(folder / inside) == DISK
    assert not sparsebundle.recognise_bundle(folder / "bands" / "0")


@pytest.mark.parametrize("damage", ["missing", "empty", "noise"])
def test_the_backup_stands_in_for_the_property_list(tmp_path: Path, damage: str) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    info = folder / "Info.plist"
    if damage == "missing":
        info.unlink()
    else:
        info.write_bytes(b"" if damage == "empty" else b"<plist>\0\xff")
    assert whole(folder) == DISK
    (folder / "Info.bckup").unlink()
    with pytest.raises(CorruptImage, match=r"Info\.plist"):
        opened(folder)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("bits", "block"), [(128, 512), (256, 4096)])
def test_encrypted_block_numbers_start_again_in_each_band(
    tmp_path: Path, version: int, bits: int, block: int
) -> None:
    keys = Keys(bits, block)
    token = trailer_v1(keys, 0) if version == 1 else header_v2(keys, 0, [(1, passphrase_blob(keys, PASSPHRASE))])
    disk = DISK[: 4 * BAND] + bytes(BAND) + DISK[:512]
    folder = write_bundle(tmp_path / "a.sparsebundle", disk, band=BAND, keys=keys, token=token)
    assert not (folder / "bands" / "4").exists()
    container = opened(folder)
    try:
        assert container.details["encryption"]["cipher"] == f"AES-{bits}"
        assert container.disk.read(0, len(disk)) == disk
        assert container.disk.read(BAND + 700, 100) == disk[BAND + 700 : BAND + 800]
    finally:
        container.close()
    with pytest.raises(WrongPassphrase):
        opened(folder, b"wrong")
    with pytest.raises(PassphraseNeeded):
        open_container(folder, cache=ChunkCache(1))


def test_encrypted_band_that_ends_inside_a_block(tmp_path: Path) -> None:
    keys = Keys(128, 512)
    token = header_v2(keys, 0, [(1, passphrase_blob(keys, PASSPHRASE))])
    folder = write_bundle(
        tmp_path / "a.sparsebundle", DISK[:BAND], band=BAND, keys=keys, token=token, store=lambda _, data: data[:1040]
    )
    assert whole(folder) == DISK[:1040] + bytes(BAND - 1040)


def test_reading_without_waiting(tmp_path: Path) -> None:
    band = 1 << 18
    disk = hashlib.shake_128(b"large").digest(3 * band)
    disk = disk[:band] + bytes(band) + disk[2 * band :]
    keys = Keys()
    token = header_v2(keys, 0, [(1, passphrase_blob(keys, PASSPHRASE))])
    for folder in (
        write_bundle(tmp_path / "plain.sparsebundle", disk, band=band),
        write_bundle(tmp_path / "secret.sparsebundle", disk, band=band, keys=keys, token=token),
    ):
        container = opened(folder)
        offset, length = band - 5000, band + 10_000
        forbid_blocking()
        try:
            with pytest.raises(Cold) as cold:
                container.disk.read(offset, length)
            assert [load.key for load in container.disk.cold(offset, length)] == [
                load.key for load in cold.value.loads
            ]
        finally:
            forbid_blocking(False)
        assert len(cold.value.loads) == 4
        for load in cold.value.loads:
            load.run()
        forbid_blocking()
        try:
            assert container.disk.cold(offset, length) == ()
            assert container.disk.read(offset, length) == disk[offset : offset + length]
        finally:
            forbid_blocking(False)
            container.close()


def test_reads_outside_the_disk(tmp_path: Path) -> None:
    container = opened(write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND))
    try:
        with pytest.raises(OutOfRange):
            container.disk.read(len(DISK) - 10, 11)
        assert container.disk.cold(len(DISK), 10) == ()
    finally:
        container.close()


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_a_band_that_is_no_file_is_an_error_for_that_band(tmp_path: Path, kind: str) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    band = folder / "bands" / "1"
    band.unlink()
    if kind == "fifo":
        os.mkfifo(band)
    elif kind == "folder":
        band.mkdir()
    else:
        band.symlink_to("/dev/zero" if kind == "link" else "/nowhere/at/all")
    container = opened(folder)
    try:
        with pytest.raises(CorruptImage, match="not a regular file"):
            container.disk.read(BAND, 10)
        assert container.disk.read(0, BAND) == DISK[:BAND]
    finally:
        container.close()


@pytest.mark.parametrize("name", ["Info.plist", "token"])
def test_property_list_and_token_are_not_followed(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptImage, match="not a regular file"):
        opened(folder)


def test_the_folder_of_bands_is_not_followed(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    (folder / "bands").rename(tmp_path / "elsewhere")
    (folder / "bands").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptImage, match="bands"):
        opened(folder)
    (folder / "bands").unlink()
    with pytest.raises(CorruptImage, match="bands"):
        opened(folder)


def test_a_bundle_that_changes_underneath_is_eio(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK[: 2 * BAND] + bytes(BAND), band=BAND)
    container = opened(folder)
    try:
        container.disk.read(0, 3 * BAND)
        (folder / "bands" / "0").write_bytes(b"shorter")
        with pytest.raises(OSError, match="changed") as error:
            container.disk.read(0, 10)
        assert error.value.errno == errno.EIO
        assert container.disk.read(BAND, BAND) == DISK[BAND : 2 * BAND]
        (folder / "bands" / "1").unlink()
        with pytest.raises(OSError, match="came or went"):
            container.disk.read(BAND, 10)
    finally:
        container.close()


@pytest.mark.parametrize(
    "keys",
    [
        {"band_size": 0},
        {"band_size": -512},
        {"band_size": 513},
        {"band_size": 1 << 31},
        {"band_size": 1 << 63},
        {"band_size": True},
        {"band_size": "8192"},
        {"band_size": 1.5},
        {"size": 0},
        {"size": -1},
        {"size": 1 << 63},
        {"size": [1]},
    ],
)
def test_impossible_sizes(tmp_path: Path, keys: dict[str, object]) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND, **keys)
    with pytest.raises(CorruptImage, match="size"):
        opened(folder)


def test_huge_disk_of_tiny_bands_costs_nothing(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK[:512], band=512, size=(1 << 63) - 1)
    container = opened(folder)
    try:
        assert container.disk.size == (1 << 63) - 1
        assert container.disk.read(container.disk.size - 600, 600) == bytes(600)
    finally:
        container.close()


def test_integers_of_thousands_of_digits(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    huge = info_plist(len(DISK), BAND).replace(
        b"<integer>8192</integer>", b"<integer>0x" + b"f" * 5000 + b"</integer>"
    )
    (folder / "Info.plist").write_bytes(huge)
    (folder / "Info.bckup").unlink()
    with pytest.raises(CorruptImage, match="of 20000 bits"):
        opened(folder)


HOSTILE_LISTS = {
    "entity": b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b"<plist><dict><key>size</key><string>&x;</string></dict></plist>",
    "laughs": b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    b"<plist><string>&b;</string></plist>",
    "deep": b"<plist>" + b"<array>" * 50_000 + b"</array>" * 50_000 + b"</plist>",
    "array": b"<plist><array/></plist>",
    "nothing": b"<plist></plist>",
    "binary": b"bplist00\xd0\x08\0\0\0\0\0\0\1\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09",
    "encoding": b'<?xml version="1.0" encoding="foo-bar"?><plist><dict/></plist>',
    "number": b"<plist><dict><key>size</key><integer>many</integer></dict></plist>",
    "large": b"<plist><dict/></plist>" + b" " * (1 << 20),
}


@pytest.mark.parametrize("name", HOSTILE_LISTS)
def test_hostile_property_lists(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    (folder / "Info.plist").write_bytes(HOSTILE_LISTS[name])
    if name == "large":
        with pytest.raises(CorruptImage, match="at most"):
            opened(folder)
        return
    assert whole(folder) == DISK  # the backup is sound
    (folder / "Info.bckup").unlink()
    with pytest.raises(CorruptImage):
        opened(folder)


def test_padding_behind_the_property_list(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    (folder / "Info.bckup").unlink()
    with (folder / "Info.plist").open("ab") as info:
        info.write(b"\n\0\0\0")
    assert whole(folder) == DISK


def test_other_kinds_of_bundle_are_named(tmp_path: Path) -> None:
    kind = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND, diskimage_bundle_type="com.example.other")
    with pytest.raises(Unsupported, match=r"com\.example\.other"):
        opened(kind)
    version = write_bundle(tmp_path / "b.sparsebundle", DISK, band=BAND, bundle_backingstore_version=2)
    with pytest.raises(Unsupported, match="version 2"):
        opened(version)


def test_folder_that_is_no_bundle(tmp_path: Path) -> None:
    assert not sparsebundle.recognise_bundle(tmp_path)
    with pytest.raises(NotAnImage):
        opened(tmp_path)


def test_damaged_tokens(tmp_path: Path) -> None:
    keys = Keys(128, 4096)
    good = header_v2(keys, 0, [(1, passphrase_blob(keys, PASSPHRASE))])
    for number, (token, band) in enumerate([(b"x" * 5000, BAND), (good[:3000], BAND), (good, 512)]):
        folder = write_bundle(tmp_path / f"{number}.sparsebundle", DISK, band=band, token=token)
        with pytest.raises((CorruptImage, NotAnImage)):
            opened(folder)


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    good = write_bundle(tmp_path / "a.sparsebundle", DISK, band=BAND)
    bad = write_bundle(tmp_path / "b.sparsebundle", DISK, band=BAND, token=b"x" * 2000)
    odd = write_bundle(tmp_path / "c.sparsebundle", DISK, band=BAND)
    (odd / "bands" / "0").unlink()
    (odd / "bands" / "0").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        whole(good)
        with pytest.raises(DmgError):
            opened(bad)
        with pytest.raises(CorruptImage):
            whole(odd)
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_range_of_any_bundle(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    band = data.draw(st.sampled_from([512, 1536, 4096]))
    size = data.draw(st.integers(1, 9000))
    lengths = data.draw(
        st.lists(st.none() | st.integers(0, band), min_size=-(-size // band), max_size=-(-size // band))
    )
    disk = bytearray(DISK[:size])
    folder = tmp_path_factory.mktemp("any") / "a.sparsebundle"

    def store(number: int, plain: bytes) -> bytes | None:
        length = lengths[number]
        kept = length or 0
        disk[number * band + kept : number * band + len(plain)] = bytes(max(0, len(plain) - kept))
        return None if length is None else plain[:length]

    write_bundle(folder, DISK[:size], band=band, store=store)
    container = opened(folder)
    try:
        offset = data.draw(st.integers(0, size))
        length = data.draw(st.integers(0, size - offset))
        assert container.disk.read(offset, length) == disk[offset : offset + length]
    finally:
        container.close()
    shutil.rmtree(folder)
