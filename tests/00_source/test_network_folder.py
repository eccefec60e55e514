"""The folder of blocks: what it gives is what was stored, it stays within its bound, and many may use it at once."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dmgfs.remote.cachefolder import CacheFolder

PAGE = 4096
OURS = ("lock", "claims")
BUDGET = 20 * PAGE


def held(path: Path) -> int:
    """Bytes of all blocks."""
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in path.iterdir() if file.name not in OURS)


def folder(path: Path, budget: int = BUDGET) -> CacheFolder:
    found = CacheFolder.open(str(path), budget)
    assert found is not None
    return found


def content(key: str, index: int) -> bytes:
    return random.Random(f"{key} {index}").randbytes(1 + 900 * (index % 7))


class Shared(RuleBasedStateMachine):
    """Two processes' views of one folder, in which things go wrong as well. The model is what a block's bytes must be."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.path = Path(self.place.name)
        self.folders = [folder(self.path), folder(self.path)]

    keys = st.sampled_from(["one", "two", "three"])
    which = st.integers(0, 1)
    numbers = st.integers(0, 12)

    @rule(which=which, key=keys, index=numbers)
    def put(self, which: int, key: str, index: int) -> None:
        blocks = self.folders[which].of(key)
        assert blocks.get(index) in (None, content(key, index))  # as everybody does first; takes what is torn away
        blocks.put(index, content(key, index))
        assert blocks.get(index) == content(key, index), "what was stored last is there"

    @rule(which=which, key=keys, index=numbers)
    def get(self, which: int, key: str, index: int) -> None:
        assert self.folders[which].of(key).get(index) in (None, content(key, index))

    @rule(which=which)
    def open_again(self, which: int) -> None:
        self.folders[which].close()
        self.folders[which] = folder(self.path)

    def _some_file(self, choice: int) -> Path | None:
        files = sorted(file for file in self.path.iterdir() if file.name not in OURS)
        return files[choice % len(files)] if files else None

    @rule(choice=st.integers(0, 99), cut=st.integers(0, 40))
    def tear(self, choice: int, cut: int) -> None:
        file = self._some_file(choice)
        if file is not None:
            os.truncate(file, max(file.stat().st_size - cut, 0))

    @rule(choice=st.integers(0, 99), at=st.integers(0, 6000))
    def flip(self, choice: int, at: int) -> None:
        file = self._some_file(choice)
        if file is not None and file.stat().st_size:
            data = bytearray(file.read_bytes())
            data[at % len(data)] ^= 1
            file.write_bytes(data)

    @rule(choice=st.integers(0, 99), other=st.integers(0, 99))
    def swap(self, choice: int, other: int) -> None:
        one, two = self._some_file(choice), self._some_file(other)
        if one is not None and two is not None and one != two:
            two.write_bytes(one.read_bytes())

    @rule(choice=st.integers(0, 99))
    def crash_in_the_middle(self, choice: int) -> None:
        (self.path / f"new-{'0' * 32}-{choice:x}").write_bytes(bytes(100))

    @invariant()
    def bounded(self) -> None:
        unfinished = sum(PAGE for file in self.path.iterdir() if file.name.startswith("new-"))
        assert held(self.path) - unfinished <= BUDGET + 3 * PAGE  # `swap` writes past the lock

    def teardown(self) -> None:
        for one in self.folders:
            one.close()
        self.place.cleanup()


TestShared = Shared.TestCase
TestShared.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_torn_block_that_is_stored_again_comes_back(tmp_path: Path) -> None:
    blocks = folder(tmp_path).of("one")
    blocks.put(1, b"block" * 100)
    [file] = [file for file in tmp_path.iterdir() if file.name not in OURS]
    file.write_bytes(file.read_bytes()[:-1])
    assert blocks.get(1) is None
    assert not file.exists()
    blocks.put(1, b"block" * 100)
    assert blocks.get(1) == b"block" * 100


def test_what_was_read_lately_stays(tmp_path: Path) -> None:
    cache = folder(tmp_path)
    blocks = cache.of("one")
    old = time.time() - 3600
    for index in range(20):
        blocks.put(index, bytes(100))
    for file in tmp_path.iterdir():
        os.utime(file, (old, old))
    assert blocks.get(3) is not None
    for index in range(20, 37):
        blocks.put(index, bytes(100))
    assert blocks.get(3) is not None
    assert held(tmp_path) <= BUDGET


PROCESS = """
import random, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}]
from test_network_folder import content, folder
path = Path(sys.argv[1])
chance = random.Random(sys.argv[2])
cache = folder(path)
end = time.monotonic() + 1.5
done = stored = 0
while time.monotonic() < end:
    key, index = chance.choice(("one", "two", "three")), chance.randrange(13)
    blocks = cache.of(key)
    data = blocks.get(index)
    assert data in (None, content(key, index))
    if data is None:
        blocks.put(index, content(key, index))
        stored += 1
    done += 1
print(done, stored)
"""


def test_processes_at_once_one_of_them_killed(tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = PROCESS.format(tests=str(here.parent), here=str(here))
    run = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen([*run, str(number)], stdout=subprocess.PIPE) for number in range(3)]
    time.sleep(0.8)
    processes[0].kill()
    most = 0
    while any(process.poll() is None for process in processes):
        try:
            most = max(most, held(tmp_path))
        except FileNotFoundError:
            pass  # one went while we looked
        time.sleep(0.02)
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes[1:]] == [0, 0]
    assert all(int(output.split()[0]) > 50 for output in outputs[1:])
    assert most <= BUDGET + PAGE  # one may be under way
    again = folder(tmp_path)
    for key in ("one", "two", "three"):
        for index in range(13):
            again.of(key).put(index, content(key, index))
    assert held(tmp_path) <= BUDGET
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("new-")]


def test_no_room_on_the_disk_is_no_failure(tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    blocks = folder(tmp_path).of("one")

    def full(*arguments: object, **words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    blocks.put(1, b"data")
    blocks.put(2, b"data")
    assert blocks.get(1) is None
    assert caplog.text.count("No space left") == 1
    assert not [file for file in tmp_path.iterdir() if file.name not in OURS]


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert CacheFolder.open(str(tmp_path / "file" / "cache"), BUDGET) is None
    assert "nothing is kept" in caplog.text


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        CacheFolder.open(str(tmp_path), BUDGET)


def test_a_new_folder_is_the_users_own(tmp_path: Path) -> None:
    folder(tmp_path / "a" / "cache").of("one").put(1, b"data")
    assert (tmp_path / "a" / "cache").stat().st_mode & 0o777 == 0o700


def test_it_is_found_where_it_was_when_the_path_leads_elsewhere(tmp_path: Path) -> None:
    cache = folder(tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "moved")
    cache.of("one").put(1, b"data")
    assert cache.of("one").get(1) == b"data"
    assert not (tmp_path / "cache").exists()


def test_a_claim_is_one_processs_and_ends_with_it(tmp_path: Path) -> None:
    ours, theirs = folder(tmp_path).of("one"), folder(tmp_path)
    assert ours.claim(1)
    assert ours.claim(1)
    assert not theirs.of("one").claim(1)
    assert theirs.of("one").claim(2)
    assert theirs.of("two").claim(1)
    ours.release(1)
    assert theirs.of("one").claim(1)
    assert not ours.claim(1)
    theirs.close()
    assert ours.claim(1)
