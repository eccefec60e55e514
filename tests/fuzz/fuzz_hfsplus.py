"""Fuzzes HFS+: opens the volume and asks of it all that a mount may ask."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.hfsplus import volume  # noqa: F401

from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.requests import SOUND, read_all


def one_input(data: bytes) -> None:
    read_all(data)


def seeds() -> list[bytes]:
    sensitive = HfsPlusBuilder(hfsx=True, binary=True, catalog_node_size=512, with_attributes=False)
    sensitive.file(ROOT, "a", b"data")
    return [bytes(SOUND.data), bytes(sensitive.build().data), bytes(HfsPlusBuilder().build().data)]


if __name__ == "__main__":
    fuzz(one_input, seeds())
