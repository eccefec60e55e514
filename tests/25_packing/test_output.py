"""The output file: complete or not there."""

import errno
import os
import stat
from pathlib import Path

import pytest

from dmgfs.packing.output import Output


def test_it_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Output(path) as output:
        assert output.append(b"one") == 0
        assert output.append(b"two") == 3
        output.write(10, b"x")
        output.extend(20)
        assert not path.exists()
        output.commit()
        assert path.read_bytes() == b"onetwo\0\0\0\0x" + bytes(9)
    assert os.listdir(tmp_path) == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_what_failed(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), Output(tmp_path / "out") as output:  # noqa: PT012
        output.append(b"data")
        raise error
    assert os.listdir(tmp_path) == []


def test_what_is_there_stays_unless_it_may_go(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        Output(path)
    with pytest.raises(RuntimeError), Output(path, replace=True):
        raise RuntimeError
    assert path.read_text() == "mine"
    with Output(path, replace=True) as output:
        output.append(b"new")
        output.commit()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_what_came_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(FileExistsError), Output(path) as output:  # noqa: PT012
        path.write_text("mine")
        output.commit()
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with Output(tmp_path / "out") as output:
        output.append(b"data")
        output.commit()
    with pytest.raises(FileExistsError), Output(tmp_path / "other") as output:  # noqa: PT012
        (tmp_path / "other").write_text("mine")
        output.commit()
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]
    assert (tmp_path / "other").read_text() == "mine"


def test_no_folder_and_no_device_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(FileExistsError, match="no regular file"):
            Output(tmp_path / name, replace=True)


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Output(tmp_path / "missing" / "out")
    assert missing.value.filename == str(tmp_path / "missing" / "out")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as error, Output(tmp_path / "out") as output:
        output.append(b"data")
    assert error.value.filename == str(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    with Output(tmp_path / "out") as output:
        output.append(b"0123456789" * 5)
        output.commit()
    assert (tmp_path / "out").read_bytes() == b"0123456789" * 5
