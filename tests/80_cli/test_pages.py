"""Manual pages and completions: they say what the parsers say, tools for them have nothing to complain about, shells
complete with them, and a wheel has them."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "scripts"))

from pages.__main__ import write  # noqa: E402
from pages.completions import PLACES  # noqa: E402
from pages.manual import EXIT_STATUS, MOUNT_STATUS  # noqa: E402
from pages.parsers import options, parts, value_of, words_of  # noqa: E402
from pages.roff import escape, paragraph  # noqa: E402

from dmgfs.cli import EXIT_CODES, VERBS, helper  # noqa: E402
from dmgfs.cli.options import FSTAB, KERNEL, OURS  # noqa: E402

PAGES = ("share/man/man1/dmgfs.1", "share/man/man8/mount.dmgfs.8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    assert write(folder) == sorted([*PAGES, *PLACES.values()])
    return folder


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program}")
    return found


# -- manual pages ---------------------------------------------------------------------------------------------------------


def test_every_verb_and_option_is_in_the_manual(made: Path) -> None:
    text = (made / PAGES[0]).read_text()
    for verb in VERBS:
        for name, parser in parts(verb):
            assert f"\n.SS {escape(name)}\n" in text
            for action in options(parser):
                for word in action.option_strings:
                    assert f"\\fB{escape(word)}\\fR" in text, f"{name} {word}"


def test_every_word_of_o_is_in_the_manual(made: Path) -> None:
    text = (made / PAGES[1]).read_text()
    for word in OURS:
        assert f"\n\\fB{escape(word)}\\fR" in text, word
    for word in KERNEL | FSTAB:
        assert f"\\fB{escape(word)}\\fR" in text, word


def test_every_exit_code_is_in_the_manual() -> None:
    assert {code for _, code in EXIT_CODES} <= EXIT_STATUS.keys()
    assert {*helper.CODES.values(), helper.FAILED} == MOUNT_STATUS.keys()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("lint", [["mandoc", "-Tlint"], ["groff", "-man", "-Tutf8", "-ww", "-z"]])
def test_nothing_to_complain_about(made: Path, page: str, lint: list[str]) -> None:
    done = subprocess.run([need(lint[0]), *lint[1:], made / page], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "text", [".TH 1", "'so x", "a \\fB b", "-o x-y", "Ümlaut", "a `b .c` d", "it's ~ ^", "x" * 300]
)
def test_text_is_text(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.1"
    page.write_text("\n".join(['.TH X 1 "2020-01-01" "x"', ".SH NAME", "x \\- y", ".SH TEXT", *paragraph(text), ""]))
    done = subprocess.run([need("mandoc"), "-Tutf8", page], capture_output=True, text=True, check=True)
    shown = re.sub("(.)\b.", r"\1", done.stdout).split("TEXT\n", 1)[1].splitlines()[0].strip()
    assert shown == text.replace("`", "")


# -- completions ----------------------------------------------------------------------------------------------------------


def bash(made: Path, folder: Path, *words: str) -> set[str]:
    script = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_dmgfs; '
        '[ ${#COMPREPLY[@]} = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = [need("bash"), "--norc", "-c", script, "bash", made / PLACES["bash"], *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr == ""
    return set(done.stdout.split())


def fish(made: Path, folder: Path, *words: str) -> set[str]:
    script = f"source '{made / PLACES['fish']}'; complete -C '{' '.join(words)}'"
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / ".config")}
    command = [need("fish"), "--no-config", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment)
    return {line.split("\t")[0].rstrip("/") for line in done.stdout.splitlines()}


def zsh(made: Path, folder: Path, *words: str) -> set[str]:
    """What TAB makes of the last word, in a zsh on a terminal. One word, or none if it is open which."""
    need("zsh")
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.environ.update(TERM="dumb", HOME=str(folder), PS1="", HISTFILE="")
        os.execvp("zsh", ["zsh", "-f", "-i"])
    result = folder / "result"

    def line(typed: bytes) -> str:
        """What lies in the file when the line was typed."""
        os.write(terminal, typed)
        limit = time.monotonic() + 30
        while not result.exists() and time.monotonic() < limit:
            if select.select([terminal], [], [], 0.05)[0]:
                os.read(terminal, 4096)
        text = result.read_text()
        result.unlink()
        return text

    try:
        functions = (made / PLACES["zsh"]).parent
        keep = b" >result.new; mv result.new result\n"
        line(f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; bindkey -e; echo".encode() + keep)
        typed = line(" ".join(words).encode() + b"\t\x01print -r -- \x05" + keep)
        last = typed.split(" ")[-1].strip().rstrip("/")
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return {last} if last != words[-1] else set()


SHELLS = {"bash": bash, "fish": fish, "zsh": zsh}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image.dmg").touch()
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dmgfs", "unmo"], "unmount"),
        (["dmgfs", "mount", "--late"], "--late-shadow"),
        (["dmgfs", "mount", "ima"], "image.dmg"),
        (["dmgfs", "mount", "image.dmg", "dire"], "directory"),
        (["dmgfs", "mount", "--xattrs", "us"], "user"),
        (["dmgfs", "mount", "--shadow", "ra"], "ram"),
        (["dmgfs", "mount", "--shadow", "ima"], "image.dmg"),
        (["dmgfs", "convert", "--to", "sparse"], "sparseimage"),
        (["dmgfs", "shadow", "snap"], "snapshot"),
        (["dmgfs", "shadow", "diff", "--js"], "--json"),
    ],
)
def test_shells_complete(made: Path, folder: Path, shell: str, words: list[str], expected: str) -> None:
    assert SHELLS[shell](made, folder, *words) == {expected}


def test_all_that_is_possible_is_offered(made: Path, folder: Path) -> None:
    assert bash(made, folder, "dmgfs", "") == set(VERBS)
    assert bash(made, folder, "dmgfs", "mount", "--names", "") == {"nfc", "nfd"}
    assert bash(made, folder, "dmgfs", "mount", "--shadow", "") == {"none", "ram", "auto:", "image.dmg", "directory"}


def test_words_are_read_off_a_values_name() -> None:
    found = {value_of(action): words_of(action) for _, parser in parts("mount") for action in options(parser)}
    assert found["nfc|nfd"] == ["nfc", "nfd"]
    assert found["none|ram[:SIZE|:NN%][,compress=zstd]|FILE|auto:..."] == ["none", "ram", "auto:"]
    assert found["record=FILE|use=FILE|auto"] == ["record=", "use=", "auto"]
    assert found["SIZE"] == []


# -- wheel ----------------------------------------------------------------------------------------------------------------


def test_a_wheel_has_them_as_the_parsers_are_now(made: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        REPOSITORY,
    ]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist()}
    for place in [*PAGES, *PLACES.values()]:
        assert held[place] == (made / place).read_bytes(), place
    for unit in (REPOSITORY / "share" / "systemd").iterdir():
        assert held[f"share/doc/dmgfs/systemd/{unit.name}"] == unit.read_bytes()
