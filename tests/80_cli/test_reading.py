"""ls, cat, stat and xattr."""

import json
import os
from pathlib import Path

import pytest
from builders.hfsplus import CREATED, EPOCH, ROOT, HfsPlusBuilder

UNIX = CREATED - EPOCH


class TestLs:
    def test_names_only(self, run, rich: Path) -> None:
        said = run("ls", rich, "Folder")
        assert (said.code, said.out) == (0, b"program\nsecond name\n")

    def test_names_are_shown_as_on_linux_and_made_harmless(self, run, rich: Path) -> None:
        said = run("ls", rich)
        names = said.out.decode().splitlines()
        assert {"a:b", "été", "control\\x1b[31m", "hidden"} <= set(names)

    def test_a_damaged_object_is_said_and_the_rest_is_listed(self, run, rich: Path) -> None:
        said = run("ls", rich)
        assert said.code == 65
        assert said.err.startswith(f"dmgfs: {rich}: leads nowhere: ")
        assert len(said.err.splitlines()) == 1
        assert b"way out\n" in said.out

    def test_long_lines(self, run, rich: Path) -> None:
        lines = run("ls", "-lR", rich).out.decode().splitlines()
        assert "drwxr-x---   1  1234    77         68 Sep  9  2001 Folder" in lines
        assert "-rwsr-xr-x   1  1234    77         10 Sep  9  2001 Folder/program" in lines
        assert "-rw-r--r--   2   501    20          6 Sep  9  2001 Folder/second name" in lines
        assert "lrwxr-xr-x   1   501    20         14 Sep  9  2001 link -> Folder/program" in lines
        assert "crw-rw-rw-   1   501    20       1, 3 Sep  9  2001 null" in lines
        assert any(line.startswith("prw-------") and line.endswith(" pipe") for line in lines)
        assert "-rw-r--r--   1   501    20          0 Jan  1  1904 old" in lines

    def test_a_folder_itself_and_several_paths(self, run, rich: Path) -> None:
        assert run("ls", "-d", rich, "Folder", "/", "text").out == b"Folder\n/\ntext\n"

    def test_json(self, run, rich: Path) -> None:
        records = {record["path"]: record for record in json.loads(run("ls", "-R", "--json", rich).out)}
        assert records["Folder/program"] == {
            "path": "Folder/program", "type": "file", "inode": records["Folder/program"]["inode"], "mode": "4755",
            "nlink": 1, "uid": 1234, "gid": 77, "size": 10, "modified": UNIX,
        }  # fmt: skip
        assert records["link"]["target"] == "Folder/program"
        assert records["null"]["device"] == os.makedev(1, 3)
        assert records["first name"]["inode"] == records["Folder/second name"]["inode"]

    def test_json_of_nothing_is_an_empty_list(self, run, tmp_path: Path) -> None:
        path = tmp_path / "empty"
        path.write_bytes(HfsPlusBuilder().build().data)
        assert json.loads(run("ls", "--json", path).out) == []

    def test_a_folder_in_itself_ends(self, run, tmp_path: Path) -> None:
        builder = HfsPlusBuilder()
        folder = builder.folder(ROOT, "one")
        builder.folder(folder, "two", cnid=folder, thread=False)
        path = tmp_path / "loop"
        path.write_bytes(builder.build().data)
        said = run("ls", "-R", path)
        assert said.code == 65
        assert said.out.splitlines()[0] == b"one"
        assert b"contains itself" in said.err.encode()


class TestCat:
    def test_a_file(self, run, rich: Path) -> None:
        assert run("cat", rich, "/Folder/program", "text").out == b"#!/bin/sh\nHello"

    @pytest.mark.parametrize(
        "path", ["link", "Folder/../text/../link", "./Folder//program", "FOLDER/Program", "Folder/../../link"]
    )
    def test_any_way_that_leads_there(self, run, rich: Path, path: str) -> None:
        wanted = b"#!/bin/sh\n"
        said = run("cat", rich, path)
        if "text/.." in path:
            assert (said.code, said.out) == (66, b"")
            assert "Not a directory" in said.err
        else:
            assert said.out == wanted

    def test_composed_and_decomposed_names(self, run, rich: Path) -> None:
        assert run("cat", rich, "été", "e\u0301te\u0301").out == b"accentsaccents"

    def test_a_resource_fork(self, run, rich: Path) -> None:
        assert run("cat", rich, "large fork/..namedfork/rsrc").out == b"R" * 70000

    def test_a_resource_fork_as_the_mount_spells_it(self, run, rich: Path) -> None:
        assert run("cat", rich, "..namedfork/large fork/rsrc").out == b"R" * 70000

    @pytest.mark.parametrize("path", ["text/..namedfork", "text/..namedfork/data", "Folder/..namedfork/rsrc"])
    def test_what_is_no_resource_fork(self, run, rich: Path, path: str) -> None:
        assert run("cat", rich, path).code == 66

    @pytest.mark.parametrize(
        ("path", "code", "text"),
        [
            ("nothing", 66, "nothing: No such file or directory"),
            ("Folder", 66, "Folder: Is a directory"),
            ("text/below", 66, "text/below: Not a directory"),
            ("pipe", 74, "pipe: not a regular file"),
            ("way out/passwd", 66, "No such file or directory"),
            ("leads nowhere", 65, "hard link"),
        ],
    )
    def test_what_cannot_be_read(self, run, rich: Path, path: str, code: int, text: str) -> None:
        said = run("cat", rich, path)
        assert (said.code, said.out) == (code, b"")
        assert text in said.err

    def test_links_in_a_circle(self, run, tmp_path: Path) -> None:
        builder = HfsPlusBuilder()
        builder.symlink(ROOT, "a", b"b")
        builder.symlink(ROOT, "b", b"/a")
        path = tmp_path / "circle"
        path.write_bytes(builder.build().data)
        assert "Too many levels of symbolic links" in run("cat", path, "a").err


class TestStat:
    def test_lines(self, run, rich: Path) -> None:
        lines = dict(line.split(maxsplit=1) for line in run("stat", rich, "hidden").out.decode().splitlines())
        assert lines["created"] == "2001-09-09 01:46:40 UTC"
        assert lines["flags"] == "hidden"

    def test_json(self, run, rich: Path) -> None:
        text, hidden, old, folder = json.loads(run("stat", "--json", rich, "text", "hidden", "old", "Folder").out)
        assert (text["finder_type"], text["finder_creator"]) == ("TEXT", "ttxt")
        assert text["xattrs"] == ["user.com.apple.FinderInfo", "user.com.example"]
        assert (hidden["flags"], hidden["finder_flags"]) == (["hidden"], ["invisible"])
        assert old["created"] == 1000 - EPOCH
        assert folder["type"] == "folder"
        assert "finder_type" not in folder
        assert text["created"] == text["modified"] == UNIX

    def test_a_resource_fork(self, run, rich: Path) -> None:
        [fork] = json.loads(run("stat", "--json", rich, "large fork/..namedfork/rsrc").out)
        assert (fork["path"], fork["type"], fork["size"]) == ("..namedfork/large fork/rsrc", "file", 70000)
        assert b"rsrc" not in run("ls", "-R", rich).out, "forks are not listed"
        assert b"large fork" in run("ls", rich, "..namedfork").out, "but where they are asked for"

    def test_encodings_have_names(self, run, rich: Path) -> None:
        assert b"text encoding   Roman\n" in run("stat", rich, "text").out


class TestXattr:
    def test_names_with_sizes(self, run, rich: Path) -> None:
        assert run("xattr", rich, "text").out == b"      32 user.com.apple.FinderInfo\n       7 user.com.example\n"

    def test_a_value(self, run, rich: Path) -> None:
        assert run("xattr", rich, "text", "user.com.example").out == b"\0\xffvalue"
        assert run("xattr", rich, "forked", "user.com.apple.ResourceFork").out == b"resource" * 10

    def test_json(self, run, rich: Path) -> None:
        [one] = json.loads(run("xattr", "--json", rich, "forked").out)
        assert one == {"name": "user.com.apple.ResourceFork", "size": 80, "value": (b"resource" * 10).hex()}

    def test_one_that_is_not_there(self, run, rich: Path) -> None:
        said = run("xattr", rich, "text", "user.nothing")
        assert said.code == 74
        assert "no attribute 'user.nothing'" in said.err
