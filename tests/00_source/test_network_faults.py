"""An object behind HTTP, with a server that has every fault there is: the right bytes, or EIO in bounded time."""

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders.rangeserver import Fault, RangeServer, serving

from dmgfs.errors import OutOfRange, Unsupported
from dmgfs.remote import RemoteSource, Settings, blocks, fetcher, open_remote
from dmgfs.remote.blocks import BLOCK
from dmgfs.remote.source import START
from dmgfs.source import Cold, forbid_blocking

TIMEOUT = 1.0
DATA = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(12 * BLOCK // 32)) + b"the end"


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving(DATA) as server:
        yield server


def opened(server: RangeServer, folder: Path | None = None, timeout: float = 15) -> "closing[RemoteSource]":
    return closing(open_remote(server.url, Settings(timeout, None if folder is None else str(folder))))


def opened_briefly(server: RangeServer) -> "closing[RemoteSource]":
    """Opened with all the time that a busy machine needs; what follows fails soon."""
    source = opened(server)
    source.thing._fetcher.timeout = TIMEOUT
    return source


def read_fails(source: RemoteSource, offset: int, words: str, within: float = 3 * TIMEOUT) -> None:
    started = time.monotonic()
    with pytest.raises(OSError, match=words) as caught:
        source.read(offset, 100)
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - started < within


def test_reads_are_exact_and_few(server: RangeServer) -> None:
    with opened(server) as source:
        assert source.size == len(DATA)
        for offset, length in [(0, 8), (len(DATA) - 7, 7), (BLOCK - 1, 2), (5 * BLOCK, 3 * BLOCK), (100, 0)]:
            assert source.read(offset, length) == DATA[offset : offset + length]
        assert len(server.requests) <= 6
        before = len(server.requests)
        for offset in range(BLOCK, 2 * BLOCK, 4096):
            assert source.read(offset, 4096) == DATA[offset : offset + 4096]
        assert len(server.requests) == before


def test_a_whole_chunk_is_one_request(server: RangeServer) -> None:
    with opened(server) as source:
        source.read(4 * BLOCK + 17, 2 * BLOCK)
        assert server.requests[1:] == [(4 * BLOCK, 7 * BLOCK)]


def test_reading_on_is_fetched_ahead(server: RangeServer) -> None:
    with opened(server) as source:
        for offset in range(0, len(DATA), BLOCK):
            length = min(BLOCK, len(DATA) - offset)
            assert source.read(offset, length) == DATA[offset : offset + length]
        assert len(server.requests) < 9
        assert source.report()["blocks ahead"] > 6


def test_many_threads_fetch_each_block_once(server: RangeServer) -> None:
    with opened(server) as source:
        server.behave = lambda number, start: Fault(pause=0.05)
        wrong: list[int] = []

        def reader(number: int) -> None:
            for step in range(24):
                offset = (number * 7 + step * 5) % 24 * (BLOCK // 2)
                if source.read(offset, BLOCK // 2) != DATA[offset : offset + BLOCK // 2]:
                    wrong.append(offset)

        threads = [threading.Thread(target=reader, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert server.sent == len(DATA)


def test_a_thread_that_must_not_wait_gets_the_loads(server: RangeServer) -> None:
    with opened(server) as source:
        forbid_blocking()
        try:
            with pytest.raises(Cold) as cold:
                source.read(BLOCK, 10)
        finally:
            forbid_blocking(False)
        for load in cold.value.loads:
            load.run()
        forbid_blocking()
        try:
            assert source.read(BLOCK, 10) == DATA[BLOCK : BLOCK + 10]
            assert source.cold(BLOCK, 10) == ()
        finally:
            forbid_blocking(False)


ONCE: dict[str, Fault] = {
    "500": Fault(status=500),
    "503 with Retry-After": Fault(status=503, headers={"Retry-After": "0"}),
    "429": Fault(status=429),
    "cut before the body": Fault(drop=True),
    "cut in the body": Fault(cut=1000),
    "cut late in the body": Fault(cut=BLOCK - 1),
    "longer than asked": Fault(length=3 * BLOCK),
    "shorter than asked": Fault(length=5),
    "another range": Fault(shift=1),
    "hangs": Fault(pause=4),
    "200 for once": Fault(status=200),
}


@pytest.mark.parametrize("name", ONCE)
def test_a_passing_fault_is_not_noticed(server: RangeServer, name: str) -> None:
    with opened(server) as source:
        source._fetcher.timeout = 3
        first = len(server.requests)
        server.behave = lambda number, start: ONCE[name] if number == first else None
        assert source.read(6 * BLOCK, BLOCK) == DATA[6 * BLOCK : 7 * BLOCK]
        assert source.report()["trouble"] is None


def test_what_came_before_a_cut_is_kept(server: RangeServer) -> None:
    with opened(server) as source:
        server.behave = lambda number, start: Fault(cut=100_000)
        assert source.read(6 * BLOCK, BLOCK) == DATA[6 * BLOCK : 7 * BLOCK]
        assert [end for _, end in server.requests[1:]] == [7 * BLOCK] * 3
        assert server.sent == 2 * BLOCK


def test_slow_but_steady_is_no_fault(server: RangeServer) -> None:
    with opened_briefly(server) as source:
        server.behave = lambda number, start: Fault(trickle=0.09)
        assert source.read(6 * BLOCK, BLOCK) == DATA[6 * BLOCK : 7 * BLOCK]
        assert source.report()["retries"] == 0


def test_too_slow_all_in_all_is_eio(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "SLOWEST", 1 << 20)
    with opened_briefly(server) as source:
        server.behave = lambda number, start: Fault(trickle=0.3)
        read_fails(source, 6 * BLOCK, "no answer|slow")


def test_a_body_without_end_is_not_taken(server: RangeServer) -> None:
    with opened_briefly(server) as source:
        server.behave = lambda number, start: Fault(headers={"Content-Length": "", "Content-Range": ""}, status=200)
        taken = source.report()["bytes"]
        read_fails(source, 6 * BLOCK, "status 200")
        assert source.report()["bytes"] == taken


def test_a_size_beyond_all_bounds_costs_nothing(server: RangeServer) -> None:
    server.behave = lambda number, start: Fault(total=1 << 62)
    with opened(server) as source:
        assert source.size == 1 << 62
        with pytest.raises(OutOfRange):
            source.read((1 << 62) - 5, 10)


ALWAYS: dict[str, tuple[Fault, str]] = {
    "500": (Fault(status=500), "status 500"),
    "nothing but cuts": (Fault(cut=0), "cut short"),
    "hangs": (Fault(pause=60), "no answer"),
    "another range": (Fault(shift=-4), "another range"),
    "gone": (Fault(status=404), "no such object"),
    "refused": (Fault(status=403), "refuses"),
    "encoded": (Fault(headers={"Content-Encoding": "gzip"}), "encoded"),
    "nonsense": (Fault(status=418), "status 418"),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_a_lasting_fault_is_eio_in_time_and_over_when_it_is_over(server: RangeServer, name: str) -> None:
    with opened_briefly(server) as source:
        fault, words = ALWAYS[name]
        server.behave = lambda number, start: fault
        read_fails(source, 6 * BLOCK, words)
        assert source.report()["trouble"] is not None
        assert source.read(10, 10) == DATA[10:20]  # in memory already
        server.behave = lambda number, start: None
        assert source.read(6 * BLOCK, 10) == DATA[6 * BLOCK : 6 * BLOCK + 10]
        assert source.report()["trouble"] is None


def test_a_dead_server_costs_its_time_once(server: RangeServer) -> None:
    with opened(server) as source:
        source._fetcher.timeout = 3
        server.stop()
        read_fails(source, 3 * BLOCK, "refused", within=5)
        for block in (4, 5):
            read_fails(source, block * BLOCK, "refused", within=1.5)
        server.start()
        assert source.read(3 * BLOCK, 10) == DATA[3 * BLOCK : 3 * BLOCK + 10]


def test_a_server_that_comes_back_in_time_is_not_noticed(server: RangeServer) -> None:
    with opened(server) as source:
        server.stop()
        threading.Timer(0.7, server.start).start()
        assert source.read(3 * BLOCK, 10) == DATA[3 * BLOCK : 3 * BLOCK + 10]


CHANGES: dict[str, Callable[[RangeServer], None]] = {
    "etag": lambda server: setattr(server, "etag", '"two"'),
    "size": lambda server: setattr(server, "data", DATA + b"more"),
    "etag missing": lambda server: setattr(server, "etag", ""),
    "shorter": lambda server: setattr(server, "data", DATA[: 2 * BLOCK]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_object_is_never_mixed_in(server: RangeServer, tmp_path: Path, name: str) -> None:
    with opened(server, tmp_path) as source:
        source.read(2 * BLOCK, 10)
        CHANGES[name](server)
        read_fails(source, 6 * BLOCK, "changed", within=1)
        assert "changed" in source.report()["trouble"]
        assert source.read(2 * BLOCK, 10) == DATA[2 * BLOCK : 2 * BLOCK + 10]


def test_a_change_between_two_parts_of_one_range(server: RangeServer) -> None:
    with opened(server) as source:
        first = len(server.requests)

        def behave(number: int, start: int) -> Fault | None:
            if number == first:
                return Fault(cut=100_000)
            server.etag = '"two"'
            return None

        server.behave = behave
        read_fails(source, 6 * BLOCK, "changed")


def test_without_an_etag_the_date_counts() -> None:
    with serving(DATA, etag="") as server, opened(server) as source:
        assert source.read(2 * BLOCK, 10) == DATA[2 * BLOCK : 2 * BLOCK + 10]
        server.modified = "Mon, 06 Jan 2020 10:00:01 GMT"
        read_fails(source, 6 * BLOCK, "changed", within=1)


def test_a_weak_etag_counts_with_the_date(server: RangeServer) -> None:
    server.etag = 'W/"one"'
    with opened(server) as source:
        server.etag = '"one"'
        assert source.read(2 * BLOCK, 10) == DATA[2 * BLOCK : 2 * BLOCK + 10]
        server.modified = "Mon, 06 Jan 2020 10:00:01 GMT"
        read_fails(source, 6 * BLOCK, "changed", within=1)


class TestOpening:
    def test_without_ranges(self, server: RangeServer) -> None:
        server.behave = lambda number, start: Fault(status=200)
        with pytest.raises(Unsupported, match="range request with status 200"):
            opened(server)

    @pytest.mark.parametrize(("status", "kind"), [(404, FileNotFoundError), (403, PermissionError), (410, OSError)])
    def test_refused(self, server: RangeServer, status: int, kind: type[OSError]) -> None:
        server.behave = lambda number, start: Fault(status=status)
        with pytest.raises(kind):
            opened(server)

    def test_nobody_there(self, server: RangeServer) -> None:
        server.stop()
        with pytest.raises(OSError, match="refused") as caught:
            opened(server, timeout=TIMEOUT)
        assert caught.value.errno == errno.EHOSTUNREACH

    def test_it_is_busy_at_first(self, server: RangeServer) -> None:
        server.behave = lambda number, start: Fault(status=503) if number < 2 else None
        with opened(server) as source:
            assert source.size == len(DATA)

    def test_empty(self) -> None:
        with serving(b"") as server, opened(server) as source:
            assert source.size == 0

    def test_redirects_are_followed(self, server: RangeServer) -> None:
        server.redirect = f"http://127.0.0.1:{server.port}/moved"
        with opened(server) as source:
            assert source.read(2 * BLOCK, 10) == DATA[2 * BLOCK : 2 * BLOCK + 10]

    def test_redirects_in_a_circle(self, server: RangeServer) -> None:
        server.redirect = server.url
        with pytest.raises(OSError, match="circles"):
            opened(server)


class TestFolder:
    def test_the_next_one_fetches_little(self, server: RangeServer, tmp_path: Path) -> None:
        with opened(server, tmp_path) as source:
            source.read(0, len(DATA))
        sent = server.sent
        with opened(server, tmp_path) as source:
            assert source.read(0, len(DATA)) == DATA
        assert server.sent - sent == START  # what opening asks for

    def test_another_version_takes_nothing_from_it(self, server: RangeServer, tmp_path: Path) -> None:
        with opened(server, tmp_path) as source:
            source.read(0, len(DATA))
        server.etag, server.data = '"two"', DATA[::-1]
        with opened(server, tmp_path) as source:
            assert source.read(0, len(DATA)) == DATA[::-1]

    def test_nothing_is_kept_of_a_version_that_nobody_can_tell(self, tmp_path: Path) -> None:
        now = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        for modified in ("", now):
            with serving(DATA, etag="", modified=modified) as server, opened(server, tmp_path) as source:
                source.read(0, len(DATA))
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "claims"}

    def test_a_dead_server_and_a_full_folder(self, server: RangeServer, tmp_path: Path) -> None:
        with opened(server, tmp_path) as source:
            source.read(0, len(DATA))
        with opened(server, tmp_path) as source:
            server.stop()
            assert source.read(0, len(DATA)) == DATA


def test_processes_that_share_a_folder_fetch_each_block_once(server: RangeServer, tmp_path: Path) -> None:
    server.behave = lambda number, start: Fault(pause=0.1)
    sources = [open_remote(server.url, Settings(15, str(tmp_path))) for _ in range(4)]
    before = server.sent
    wrong: list[int] = []

    def reader(source: RemoteSource) -> None:
        for offset in range(0, len(DATA), BLOCK // 2):
            length = min(BLOCK // 2, len(DATA) - offset)
            if source.read(offset, length) != DATA[offset : offset + length]:
                wrong.append(offset)

    threads = [threading.Thread(target=reader, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for source in sources:
        source.close()
    assert not wrong
    assert server.sent - before == len(DATA)


def test_who_claimed_a_block_and_does_nothing_holds_nobody_up_for_long(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CLAIMED", 0.3)
    with opened(server, tmp_path) as source, opened(server, tmp_path) as other:
        for index in range(12):
            source._blocks._kept.claim(index)
        started = time.monotonic()
        for index in range(1, 12):
            assert other.read(index * BLOCK, 10) == DATA[index * BLOCK : index * BLOCK + 10]
        assert 0.25 < time.monotonic() - started < 1.5


def test_closing_waits_for_nothing(server: RangeServer) -> None:
    source = open_remote(server.url, Settings(60, None))
    server.behave = lambda number, start: Fault(pause=5)
    failed: list[OSError] = []

    def reader() -> None:
        try:
            source.read(6 * BLOCK, 10)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    time.sleep(0.2)
    started = time.monotonic()
    source.close()
    thread.join()
    assert time.monotonic() - started < 1
    assert failed[0].errno == errno.EIO
    with pytest.raises(OSError, match="ending"):
        source.read(8 * BLOCK, 10)
    source.close()
