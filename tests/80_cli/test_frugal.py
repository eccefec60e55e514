"""What a hostile image may cost: 2 seconds of processor time and 300 MB of memory, in a process of its own, whatever verb
is asked. Each ends in an exit code of ours and in lines, never in a traceback.

On a slow processor seconds are longer: the slowest passphrase that is taken without asking (2,000,000 rounds) may cost half
of the time, and is the yardstick."""

import functools
import hashlib
import os
import time
from pathlib import Path

import pytest
from builders.hostile import HOSTILE
from exercise.mounted import dmgfs

MEMORY = 300 << 20


@functools.cache
def seconds() -> float:
    started = time.process_time()
    hashlib.pbkdf2_hmac("sha1", b"passphrase", b"salt", 200_000, 24)
    return max(2.0, 20 * (time.process_time() - started))


VERBS: dict[str, list[list[str]]] = {
    "info": [["info"]],
    "ls": [["ls", "-lR"]],
    "file": [["stat", "{image}", "file"], ["xattr", "{image}", "file"]],
    "verify": [["verify"]],
}

WHAT: dict[str, tuple[str, set[int], str]] = {
    # name of the image: the verbs, their exit codes, what is said (in either stream)
    "udif_list_of_49_mib": ("info", {65}, "at most 50331648"),
    "udif_laughs": ("info", {65}, "property list"),
    "udif_nested": ("info", {65}, "resource-fork"),
    "udif_million_runs": ("info", {0, 65}, "past the data fork|block table"),
    "udif_tables": ("info", {65}, "tags"),
    "udif_bomb_zlib": ("verify", {65}, "run 0"),
    "udif_bomb_bzip2": ("verify", {65}, "run 0"),
    "udif_bomb_xz": ("verify", {65}, "run 0"),
    "udif_bomb_lzfse": ("verify", {65}, "run 0"),
    "udif_largest_chunk_zlib": ("verify", {0}, ""),
    "udif_largest_chunk_bzip2": ("verify", {0}, ""),
    "udif_largest_chunk_xz": ("verify", {0}, ""),
    "udif_largest_chunk_lzfse": ("verify", {0}, ""),
    "sparse_image_of_2_to_the_60": ("info", {0, 65}, ""),
    "bundle_of_tiny_bands": ("info", {0, 65}, ""),
    "encrypted_slowly": ("info", {65}, "PBKDF2"),
    "encrypted_as_slowly_as_allowed": ("info", {77}, "wrong passphrase"),
    "mbr_in_circles": ("info", {0}, "the chain ends there"),
    "file_of_2_to_the_62": ("file", {0}, ""),
    "link_of_2_to_the_40": ("file", {0, 65}, ""),
    "packed_file_of_2_to_the_62": ("file", {0}, ""),
    "leaves_in_a_circle": ("ls", {65}, "node 2"),
    "index_into_itself": ("ls", {65}, "node"),
    "many_names": ("ls", {0}, "file 19999"),
    "deep_folders": ("ls", {65}, "stands too deep"),
    "folder_in_itself": ("ls", {65}, "contains itself"),
    "many_attributes": ("file", {0}, ""),
    "journal_of_small_blocks": ("ls", {0}, "file"),
    "journal_of_pages": ("ls", {0}, "file"),
    "journal_of_large_blocks": ("ls", {0}, "file"),
    "journal_beyond_the_bound": ("ls", {0}, "file"),
    "journal_of_empty_transactions": ("ls", {0}, "file"),
}


def test_none_is_forgotten() -> None:
    assert WHAT.keys() == HOSTILE.keys()


@pytest.mark.parametrize("name", WHAT)
def test_hostile(name: str, tmp_path: Path) -> None:
    image = HOSTILE[name](tmp_path)
    (tmp_path / "passphrase").write_text("guess\n")
    which, codes, said = WHAT[name]
    for verb, *arguments in VERBS[which]:
        if "{image}" in arguments:
            words = [verb, *(os.fspath(image) if word == "{image}" else word for word in arguments)]
        else:
            words = [verb, os.fspath(image), *arguments]
        ended = dmgfs(*words, "--passphrase-file", tmp_path / "passphrase")
        report = f"{words}: {ended.cpu:.2f} s, {ended.memory >> 20} MiB, {ended.out[-300:]} {ended.err[-600:]}"
        assert ended.code in codes, report
        assert "Traceback" not in ended.err, report
        assert any(word in ended.out + ended.err for word in said.split("|")), report
        assert ended.cpu < seconds(), report
        assert ended.memory < MEMORY, report
