"""extract: what lands in the folder or in the tar stream is what the volume holds, and nothing lands anywhere else."""

import errno
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from builders.hfsplus import CREATED, EPOCH, ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build

UNIX = CREATED - EPOCH
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and make devices")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


class TestFolder:
    @needs_root
    def test_everything_is_as_on_the_volume(self, run, rich: Path, out: Path) -> None:
        said = run("extract", rich, "-C", out)
        assert said.code == 65  # the broken link
        assert "leads nowhere" in said.err
        status = {path.relative_to(out).as_posix(): path.lstat() for path in out.rglob("*")}
        assert set(status) == {
            "Folder", "Folder/program", "Folder/second name", "a:b", "control\x1b[31m", "first name", "forked", "hidden",
            "holes", "large fork", "link", "null", "old", "pipe", "text", "way out", "été",
        }  # fmt: skip
        program = status["Folder/program"]
        assert stat.filemode(program.st_mode) == "-rwsr-xr-x"
        assert (program.st_uid, program.st_gid, program.st_mtime) == (1234, 77, UNIX)
        assert stat.filemode(status["Folder"].st_mode) == "drwxr-x---"
        assert status["Folder"].st_mtime == UNIX
        assert status["first name"].st_ino == status["Folder/second name"].st_ino
        assert status["first name"].st_nlink == 2
        assert os.readlink(out / "link") == "Folder/program"
        assert (status["link"].st_mtime, status["link"].st_uid) == (UNIX, 501)
        assert stat.S_ISFIFO(status["pipe"].st_mode)
        assert stat.S_ISCHR(status["null"].st_mode)
        assert status["null"].st_rdev == os.makedev(1, 3)
        assert status["old"].st_mtime == 1000 - EPOCH

    def test_contents(self, run, rich: Path, out: Path) -> None:
        run("extract", rich, "-C", out)
        assert (out / "text").read_bytes() == b"Hello"
        assert (out / "été").read_bytes() == b"accents"
        assert (out / "holes").read_bytes() == b"begin".ljust(200_000, b"\0") + b"end" + bytes(100_000)
        assert (out / "holes").stat().st_blocks * 512 < 200_000

    def test_attributes(self, run, rich: Path, out: Path) -> None:
        said = run("extract", rich, "-C", out)
        assert os.getxattr(out / "text", "user.com.example") == b"\0\xffvalue"
        assert os.getxattr(out / "text", "user.com.apple.FinderInfo") == b"TEXTttxt" + bytes(24)
        assert os.getxattr(out / "forked", "user.com.apple.ResourceFork") == b"resource" * 10
        assert "resource forks over 64 KiB" in said.err

    def test_without_owners_and_attributes(self, run, rich: Path, out: Path) -> None:
        run("extract", rich, "--no-owners", "--no-xattrs", "-C", out)
        program = (out / "Folder/program").stat()
        assert program.st_uid == os.geteuid()
        assert stat.S_IMODE(program.st_mode) == 0o755  # not set-user-id for somebody else's benefit
        assert os.listxattr(out / "text") == []

    def test_chosen_paths_come_with_their_folders(self, run, rich: Path, out: Path) -> None:
        assert run("extract", rich, "Folder/program", "text", "-C", out).code == 0
        assert sorted(os.listdir(out)) == ["Folder", "text"]
        assert os.listdir(out / "Folder") == ["program"]
        assert stat.S_IMODE((out / "Folder").stat().st_mode) == 0o750

    @pytest.mark.parametrize("path", ["large fork/..namedfork/rsrc", "..namedfork/large fork/rsrc"])
    def test_a_resource_fork(self, run, rich: Path, tmp_path: Path, path: str) -> None:
        assert run("extract", rich, path, "large fork", "-C", tmp_path).code == 0
        assert (tmp_path / "..namedfork/large fork/rsrc").read_bytes() == b"R" * 70000
        assert (tmp_path / "large fork").is_file()

    def test_a_path_that_is_not_there_stops_before_anything_is_written(self, run, rich: Path, out: Path) -> None:
        assert run("extract", rich, "text", "nothing", "-C", out).code == 66
        assert not out.exists()

    def test_what_is_there_stays_unless_forced(self, run, rich: Path, out: Path) -> None:
        out.mkdir()
        (out / "text").write_text("mine")
        said = run("extract", rich, "text", "-C", out)
        assert (said.code, (out / "text").read_text()) == (65, "mine")
        assert "text: File exists" in said.err
        assert run("extract", rich, "text", "--force", "-C", out).code == 0
        assert (out / "text").read_text() == "Hello"

    def test_a_folder_that_is_there_is_filled(self, run, rich: Path, out: Path) -> None:
        (out / "Folder").mkdir(parents=True)
        (out / "Folder/mine").write_text("mine")
        run("extract", rich, "Folder", "-C", out)
        assert sorted(os.listdir(out / "Folder")) == ["mine", "program", "second name"]

    @pytest.mark.parametrize("force", [[], ["--force"]])
    def test_a_link_in_place_of_a_folder_is_not_followed(self, run, rich: Path, out: Path, force: list[str]) -> None:
        outside = out.parent / "outside"
        outside.mkdir()
        out.mkdir()
        (out / "Folder").symlink_to(outside)
        said = run("extract", rich, "Folder", *force, "-C", out)
        assert said.code == 65
        assert list(outside.iterdir()) == []

    @pytest.mark.parametrize("force", [[], ["--force"]])
    def test_a_link_in_place_of_a_file_is_not_written_through(
        self, run, rich: Path, out: Path, force: list[str]
    ) -> None:
        outside = out.parent / "outside"
        outside.write_text("precious")
        out.mkdir()
        (out / "text").symlink_to(outside)
        run("extract", rich, "text", *force, "-C", out)
        assert outside.read_text() == "precious"

    def test_names_that_mean_something_elsewhere_stay_inside(self, run, tmp_path: Path, out: Path) -> None:
        builder = HfsPlusBuilder()
        for name in ("..", ".", "..:..:escape", "a\0b"):
            builder.file(ROOT, name, b"x", stored=True)
        image = tmp_path / "image"
        image.write_bytes(builder.build().data)
        run("extract", image, "-C", out)
        assert sorted(os.listdir(tmp_path)) == ["image", "out"]
        assert len(os.listdir(out)) == 4
        assert all((out / name).read_bytes() == b"x" for name in os.listdir(out))

    def test_a_file_with_damaged_data_does_not_stay_and_the_rest_does(self, run, tmp_path: Path, out: Path) -> None:
        image = tmp_path / "damaged.dmg"
        image.write_bytes(damaged_in_the_middle())
        said = run("extract", image, "-C", out)
        assert said.code == 65
        assert sorted(os.listdir(out)) == ["after", "before"]
        [line] = said.err.splitlines()
        assert line.startswith(f"dmgfs: {image}: large: UDIF: ")

    def test_what_the_target_cannot_hold_is_counted_and_costs_nothing_else(
        self, run, rich: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object, **options: object) -> None:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

        monkeypatch.setattr(os, "setxattr", refuse)
        monkeypatch.setattr(os, "fchown", refuse)
        said = run("extract", rich, "text", "-C", out)
        assert (said.code, (out / "text").read_bytes()) == (0, b"Hello")
        assert "extended attributes that the target refused (Operation not supported): 2" in said.err
        assert ("owners that the target refused" in said.err) == (os.geteuid() == 0)

    def test_progress_for_programs(self, run, rich: Path, out: Path) -> None:
        said = run("extract", rich, "holes", "--progress", "json", "-C", out)
        last = json.loads(said.err.splitlines()[-1])
        assert last == {"phase": "extract", "done": 300_003, "total": 300_003, "what": ""}


def damaged_in_the_middle() -> bytes:
    """A UDIF in chunks of 64 KiB with three files, of which "large" lies in a chunk that does not decode."""
    builder = HfsPlusBuilder()
    builder.file(ROOT, "before", b"b")
    builder.file(ROOT, "large", os.urandom(300_000))
    builder.file(ROOT, "after", b"a")
    volume = bytes(builder.build().data)
    chunks = [volume[at : at + 65536] for at in range(0, len(volume), 65536)]
    chunks[-1] += bytes(-len(chunks[-1]) % 512)
    pieces = [Piece("zlib", chunk) for chunk in chunks]
    pieces[2] = Piece("zlib", chunks[2], packed=b"no zlib at all")
    return build([Table("whole disk (Apple_HFS : 0)", pieces)]).bytes


class TestTar:
    def members(self, data: bytes) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {member.name: member for member in archive}

    def test_members(self, run, rich: Path) -> None:
        members = self.members(run("extract", rich, "--tar", "-").out)
        program = members["Folder/program"]
        assert (program.mode, program.uid, program.gid, program.mtime) == (0o4755, 1234, 77, UNIX)
        assert members["Folder"].isdir()
        assert members["link"].linkname == "Folder/program"
        assert members["null"].ischr()
        assert (members["null"].devmajor, members["null"].devminor) == (1, 3)
        assert members["pipe"].isfifo()
        links = [members["first name"], members["Folder/second name"]]
        assert sorted(one.islnk() for one in links) == [False, True]
        assert members["old"].mtime == 1000 - EPOCH
        value = members["text"].pax_headers["SCHILY.xattr.user.com.example"]
        assert value.encode("utf-8", "surrogateescape") == b"\0\xffvalue"
        assert "été" in members

    def test_contents(self, run, rich: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(run("extract", rich, "--tar", "-").out)) as archive:
            file = archive.extractfile("holes")
            assert file is not None
            assert file.read() == b"begin".ljust(200_000, b"\0") + b"end" + bytes(100_000)

    def test_gnu_tar_restores_it_without_a_complaint(self, run, rich: Path, tmp_path: Path, out: Path) -> None:
        folder = tmp_path / "by tar"
        folder.mkdir()
        run("extract", rich, "--tar", tmp_path / "archive.tar", "-C", out)
        assert not out.exists()
        options = ["--exclude=old", "--xattrs", "--xattrs-include=user.com.e*"]  # tar complains of dates before 1970
        tar = ["tar", *options, "-xpf", tmp_path / "archive.tar", "-C", folder]
        done = subprocess.run(tar, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert os.getxattr(folder / "text", "user.com.example") == b"\0\xffvalue"
        assert (folder / "first name").stat().st_ino == (folder / "Folder/second name").stat().st_ino
        assert (folder / "été").read_bytes() == b"accents"

    def test_long_names_and_large_numbers(self, run, tmp_path: Path) -> None:
        builder = HfsPlusBuilder()
        builder.file(ROOT, "n" * 200, b"1", uid=4_000_000_000, gid=4_000_000_001)
        builder.file(ROOT, "\u4e2d" * 200, b"22")
        builder.symlink(ROOT, "link", b"t" * 300)
        image = tmp_path / "image"
        image.write_bytes(builder.build().data)
        members = self.members(run("extract", image, "--tar", "-").out)
        assert (members["n" * 200].uid, members["n" * 200].gid) == (4_000_000_000, 4_000_000_001)
        assert members["\u4e2d" * 200].size == 2
        assert members["link"].linkname == "t" * 300

    def test_damaged_data_is_filled_up_and_said(self, run, tmp_path: Path) -> None:
        image = tmp_path / "damaged.dmg"
        image.write_bytes(damaged_in_the_middle())
        said = run("extract", image, "--tar", "-")
        assert said.code == 65
        members = self.members(said.out)
        assert {name: member.size for name, member in members.items() if member.isfile()} == {
            "after": 1,
            "before": 1,
            "large": 300_000,
        }
        assert "large: UDIF: " in said.err

    def test_the_stream_is_the_same_every_time(self, run, rich: Path) -> None:
        assert len({hashlib.sha256(run("extract", rich, "--tar", "-").out).digest() for _ in range(2)}) == 1
