"""Manifests of the corpus: what independent readers found in each image, as data."""

import unicodedata
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One line. type: f file, d folder, l link (sha256 of its target), x attribute (`[rsrc]`: resource fork). path: in
    decomposed form, as Linux shows it. sha256 begins with ERR where the reference reader failed."""

    type: str
    size: int
    sha256: str
    path: str
    attribute: str


PRIVATE = (
    "\u2400\u2400\u2400\u2400HFS+ Private Data",
    ".HFS+ Private Directory Data\r",
    ".journal",
    ".journal_info_block",
)
"""What a volume does not show, by the beginning of its path."""


def decomposed(name: str) -> str:
    """By the tables of Unicode 3.2, as HFS+ has them."""
    return unicodedata.ucd_3_2_0.normalize("NFD", name)


def read_manifest(path: Path) -> list[Row]:
    rows = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            kind, size, sha256, name, *attribute = line.split("\t")
            plain = name.encode("latin-1", "backslashreplace").decode("unicode_escape")
            rows.append(Row(kind, int(size), sha256, decomposed(plain), attribute[0] if attribute else ""))
    return rows


def is_private(path: str) -> bool:
    return path.split("/")[0] in PRIVATE
