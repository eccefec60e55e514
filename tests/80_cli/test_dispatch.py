"""The command line itself: help, wrong usage, exit codes, what is imported, where passphrases come from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.partitions import signed

from dmgfs import __version__
from dmgfs.cli import EXIT_CODES, VERBS, main
from dmgfs.errors import DmgError


def imports_of(*arguments: str) -> set[str]:
    """Top-level modules that a run of the program has imported at its end."""
    program = "import sys; from dmgfs.cli import main; main(sys.argv[1:]); print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_help_is_cheap_and_names_every_verb(run) -> None:
    said = run("--help")
    assert said.code == 0
    for verb in ("info", "ls", "cat", "stat", "xattr", "extract", "verify"):
        assert f"\n  {verb} ".encode() in said.out
    assert imports_of("--help").isdisjoint({"construct", "lru", "trio", "pyfuse3", "cryptography", "deflate"})


@pytest.mark.parametrize("verb", ["info", "ls", "cat", "extract", "verify"])
def test_no_verb_without_a_mount_imports_fuse(rich: Path, tmp_path: Path, verb: str) -> None:
    more = {"cat": ["text"], "extract": ["-C", str(tmp_path / "out")], "verify": ["--deep"]}.get(verb, [])
    assert imports_of(verb, str(rich), *more).isdisjoint({"trio", "pyfuse3", "cryptography"})


def test_nothing_of_a_server_is_imported_for_other_verbs() -> None:
    for arguments in (["--help"], ["mount", "nowhere", "nowhere"], ["attach", "nowhere", "/"]):
        program = f"import sys; from dmgfs.cli import main; main({arguments!r}); print('\\n' + ' '.join(sys.modules))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        found = set(done.stdout.splitlines()[-1].split())
        assert not {name for name in found if name.startswith("dmgfs.nbd")}, arguments


def test_version(run) -> None:
    assert run("--version").out == f"dmgfs {__version__}\n".encode()


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_wrong_usage_is_64(run, arguments: list[str]) -> None:
    assert run(*arguments).code == 64


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--nonsense", "x"], ["cat", "x"], ["info", "a", "b"]])
def test_wrong_arguments_of_a_verb_are_64(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 64
    assert f"dmgfs {arguments[0]}: " in capfd.readouterr().err


NO_IMAGE = (
    *("mount", "unmount", "enter", "status", "shadow", "playlist"),
    *("create", "newfs", "commit", "diff", "patch"),
    *("ramdisk", "attach", "detach", "serve", "hdik", "vndevice", "nbdst", "shims", "nbi", "rc"),
    *("imageboot", "doctor"),
)
"""Verbs whose first argument is none, or of whose failures other tests speak."""


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in NO_IMAGE])
@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (None, 66, "No such file or directory"),
        (b"", 66, "the file is empty"),
        (b"PK\x03\x04" + bytes(600), 66, "a ZIP archive"),
        (bytes(1024) + b"H+" + bytes(4096), 65, "HFS+"),
        (b"koly\0\0\0\4\0\0\2\0" + bytes(500), 65, "UDIF"),
    ],
)
def test_a_bad_image_is_one_line_and_a_code(run, tmp_path: Path, verb: str, content, code: int, text: str) -> None:
    image = tmp_path / "image"
    if content is not None:
        image.write_bytes(content)
    more: list[str] = ["file"] if verb in ("cat", "stat", "xattr") else []
    more += {"verify": ["--deep"], "convert": [str(tmp_path / "out")]}.get(verb, [])
    said = run(verb, image, *more)
    if verb in ("info", "verify", "convert") and content is not None and content[1024:1026] == b"H+":
        # The disk can be read; what is on it is a finding, and no concern of convert.
        assert verb == "convert" or text.encode() in said.out
        assert said.code == (65 if verb == "verify" else 0)
        return
    assert (said.code, said.out) == (code, b"")
    [line] = said.err.splitlines()
    assert line.startswith(f"dmgfs: {image}: ")
    assert text in line


def test_a_volume_of_another_kind_is_69_with_advice(run, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(signed(bytearray(8192), 0, b"NXSB"))
    said = run("ls", image)
    assert said.code == 69
    assert "APFS" in said.err
    assert "apfs-fuse" in said.err


def test_every_error_of_the_engine_has_a_code() -> None:
    def below(kind: type) -> list[type]:
        return [kind, *(one for sub in kind.__subclasses__() for one in below(sub))]

    for kind in below(DmgError):
        assert any(issubclass(kind, known) for known, _ in EXIT_CODES)


def test_a_name_cannot_write_to_the_terminal(run, tmp_path: Path) -> None:
    said = run("ls", tmp_path / "a\x1b]0;title\x07b")
    assert said.err == f"dmgfs: {tmp_path}/a\\x1b]0;title\\x07b: No such file or directory\n"


def test_a_reader_that_leaves_is_no_traceback(rich: Path) -> None:
    program = [sys.executable, "-m", "dmgfs", "ls", "-lR", str(rich)]
    done = subprocess.run(["sh", "-c", '"$@" | :', "sh", *program], capture_output=True, text=True, check=False)
    assert done.stderr == ""


class TestPassphrase:
    @pytest.fixture
    def encrypted(self, tmp_path: Path, rich: Path) -> Path:
        path = tmp_path / "secret.dmg"
        path.write_bytes(encrypt_v2(rich.read_bytes()))
        return path

    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nsecond line\n"])
    def test_from_a_file(self, run, tmp_path: Path, encrypted: Path, end: bytes) -> None:
        (tmp_path / "passphrase").write_bytes(PASSPHRASE + end)
        assert run("cat", encrypted, "text", "--passphrase-file", tmp_path / "passphrase").out == b"Hello"

    def test_from_a_descriptor(self, run, encrypted: Path) -> None:
        reading, writing = os.pipe()
        os.write(writing, PASSPHRASE + b"\n")
        os.close(writing)
        try:
            assert run("cat", encrypted, "text", "--passphrase-fd", str(reading)).out == b"Hello"
        finally:
            os.close(reading)

    def test_a_wrong_one_is_77(self, run, tmp_path: Path, encrypted: Path) -> None:
        (tmp_path / "passphrase").write_bytes(b"zebra")
        said = run("info", encrypted, "--passphrase-file", tmp_path / "passphrase")
        assert said.code == 77
        assert len(said.err.splitlines()) == 1
        assert "zebra" not in said.err

    def test_none_at_all_is_77_and_says_how(self, encrypted: Path) -> None:
        command = [sys.executable, "-m", "dmgfs", "info", str(encrypted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
        assert done.returncode == 77
        assert "--passphrase-file" in done.stderr

    def test_on_a_terminal_it_is_asked_for_without_echo(self, encrypted: Path) -> None:
        terminal, inside = os.openpty()
        code = (
            "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "from dmgfs.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, "cat", str(encrypted), "text"],
            stdin=inside,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(inside)
        asked = b""
        while b": " not in asked:
            asked += os.read(terminal, 1000)
        os.write(terminal, PASSPHRASE + b"\n")
        out, err = child.communicate(timeout=60)
        asked += os.read(terminal, 1000)
        os.close(terminal)
        assert (child.returncode, out, err) == (0, b"Hello", b"")
        assert b"Passphrase for" in asked
        assert PASSPHRASE not in asked


@pytest.mark.parametrize(
    ("cause", "code", "said"),
    [
        (RuntimeError("can't start new thread"), 70, "internal error: RuntimeError: can't start new thread"),
        (MemoryError(), 71, "out of memory"),
        (DmgError("it is damaged"), 65, "it is damaged"),
    ],
)
def test_a_failure_of_the_daemon_is_named_not_the_group_it_came_in(
    cause: Exception,
    code: int,
    said: str,
    rich: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise ExceptionGroup("Exceptions from Trio nursery", [ExceptionGroup("inner", [cause])])

    monkeypatch.setattr("dmgfs.fuse.serve.serve", fails)
    assert main(["mount", str(rich), str(tmp_path), "-f"]) == code
    assert capfd.readouterr().err.splitlines()[-1] == f"dmgfs: {rich}: {said}"
