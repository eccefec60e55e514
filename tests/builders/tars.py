"""Tar archives out of members that a test names."""

import io
import tarfile
from pathlib import Path


def made(path: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.DEFAULT_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info
