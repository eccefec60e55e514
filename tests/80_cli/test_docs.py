"""What the documentation shows is run as it stands there."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

from builders.hfsplus import ROOT, HfsPlusBuilder

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
API = REPOSITORY / "docs" / "api.md"
THREATS = REPOSITORY / "docs" / "threats.md"


def test_the_example_of_the_engine(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", API.read_text(), re.DOTALL)
    builder = HfsPlusBuilder(name="Example")
    folder = builder.folder(ROOT, "folder")
    builder.file(folder, "inside", b"123")
    builder.file(ROOT, "Read Me.txt", b"Hello, reader")
    image = tmp_path / "image"
    image.write_bytes(builder.build().data)
    done = subprocess.run([sys.executable, "-c", example, image], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("raw ")
    assert lines[1:] == [
        "0   HFS+",
        "HFS+ Example 2 files",
        "/folder 0",
        "/folder/inside 3",
        "/Read Me.txt 13",
        "Hello, reader",
    ]
    image.write_bytes(b"PK\x03\x04" + bytes(600))
    done = subprocess.run([sys.executable, "-c", example, image], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZIP archive" in done.stderr


def test_the_verbs_without_a_mount_take_json_but_for_those_that_are_named() -> None:
    section = README.read_text().split("## Without a mount\n")[1].split("\n## ")[0]
    verbs = set(re.findall(r"`(?:dmgfs )?([a-z]+)\b", " ".join(re.findall(r"^\| (`.*?) \| ", section, re.MULTILINE))))
    [sentence] = re.findall(r"^All but (.*) take `--json`", section, re.MULTILINE)
    without = set()
    for verb in verbs:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"dmgfs.cli.{verb}").configure(parser)
        if "--json" not in parser.format_help():
            without.add(verb)
    assert len(verbs) > 14
    assert without == set(re.findall(r"`(\w+)`", sentence))


def test_every_test_that_the_list_of_threats_names_is_there() -> None:
    tests = REPOSITORY / "tests"
    named = re.findall(r"`(?:([\w/]+\.py))?::(test_\w+)`", THREATS.read_text())
    assert len(named) > 120
    file = ""
    for path, name in named:
        file = path or file
        source = (tests / file).read_text()
        assert re.search(rf"^ *(async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"


def test_every_threat_has_a_row() -> None:
    rows = re.findall(r"^\| ((?:[UPHS]\d+(?:, )?)+) \|", THREATS.read_text(), re.MULTILINE)
    listed = list(dict.fromkeys(number for row in rows for number in row.split(", ")))
    expected = [f"{kind}{number}" for kind, last in (("U", 30), ("P", 7), ("H", 36)) for number in range(1, last + 1)]
    assert listed == [*expected, "S1", *(f"S{number}" for number in range(5, 11))]
