"""The table beside hdiutil names verbs and options that there are."""

import re
from pathlib import Path

import pytest

from dmgfs.cli import VERBS, parser_of

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = (REPOSITORY / "docs/hdiutil.md").read_text()
MANUAL = {
    "create",
    "detach",
    "unflatten",
    "resize",
    "segment",
    "checksum",
    "mountvol",
    "burn",
    "help",
    "attach",
    "flatten",
    "udifderez",
    "makehybrid",
    "plugins",
    "pmap",
    "unmount",
    "erasekeys",
    "info",
    "internet-enable",
    "chpass",
    "verify",
    "udifrez",
    "imageinfo",
    "compact",
    "convert",
    "isencrypted",
}


def commands() -> set[tuple[str, str]]:
    """(verb, option or "") of every `dmgfs VERB …` in the table; bare options are those of the verb before them."""
    found: set[tuple[str, str]] = set()
    for row in re.findall(r"^\| .*", TABLE, re.MULTILINE):
        verb = ""
        for code in re.findall(r"`([^`]*)`", row.split("|", 2)[2]):
            words = code.split()
            if words[0] == "dmgfs" and words[1] in VERBS:
                verb = words[1]
                found.add((verb, ""))
            if verb:
                found |= {(verb, word) for word in words if word.startswith("--")}
    return found


@pytest.mark.parametrize(("verb", "option"), sorted(commands()))
def test_there_is_such_an_option(verb: str, option: str) -> None:
    said = parser_of(verb).format_help()
    assert re.search(rf"(?<![\w-]){option}(?![\w-])", said), f"dmgfs {verb} {option}"


def test_every_verb_of_the_manual_has_a_row() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", TABLE.replace(r"\|", "/"), re.MULTILINE)
    first = {code.split()[0] for row in rows for code in re.findall(r"`([^`]*)`", row)}
    assert first >= MANUAL
