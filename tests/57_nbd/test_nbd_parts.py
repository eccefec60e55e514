"""The parts of the NBD server that need no nbdkit: addresses, what is handed over, writers and their shadows, the log."""

import os
import random
import socket
import threading
from pathlib import Path

import pytest

from dmgfs.blockshadow import View
from dmgfs.nbd.address import Address, listen, parse_address, uri
from dmgfs.nbd.clients import Clients, Refused
from dmgfs.nbd.log import Repeats
from dmgfs.nbd.settings import VARIABLE, Settings, hand_over, taken_over
from dmgfs.source import MemorySource
from overlay.file import FileStore
from overlay.ram import RamStore

BYTES = random.Random(1).randbytes(64 << 10)
EXPORTS = {"disk": View("disk", 0, len(BYTES)), "disk0s1": View("disk0s1", 4096, 8192)}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:1", Address(host="host", port=1)),
        ("host", Address(host="host")),
        (":0", Address(port=0)),
        ("*:7", Address(port=7)),
        ("tcp:1.2.3.4:7", Address(host="1.2.3.4", port=7)),
        ("[::1]:7", Address(host="::1", port=7)),
        ("[::1]", Address(host="::1")),
        ("unix:/a b", Address(path="/a b")),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["unix:", ":", "host:", "host:x", "host:65536", "::1", "::1:7", "/a/path", "host:-1"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"write|no port number"):
        parse_address(text)


def test_clients_that_fall_silent_are_asked_after():
    with listen(parse_address("127.0.0.1:0")) as listening:
        port = listening.getsockname()[1]
        assert uri(Address(host="127.0.0.1"), listening, tls=True) == f"nbds://127.0.0.1:{port}/"
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


def test_settings_go_from_one_process_to_the_other(monkeypatch):
    settings = Settings(
        *("/image", (3.0, None, 5), 7, True, b"\0secret\xff", False, (("disk", 0, 5), ("b", 1, 2)), "ram", "", True),
        *(None, False, True, False, False, "refuse", "none", 3, "", "/s", -1),
    )
    monkeypatch.setenv(VARIABLE, str(hand_over(settings)))
    assert taken_over() == settings
    assert VARIABLE not in os.environ


def test_one_writer_and_what_becomes_of_the_next():
    clients = Clients(MemorySource(BYTES), EXPORTS, lambda client: RamStore(1 << 20))
    first = clients.connect("")
    with pytest.raises(Refused, match="one client at a time"):
        clients.connect("disk0s1")
    first.write(4096 + 5, b"written")
    waited = threading.Timer(0.1, clients.leave, [first])
    waited.start()
    second = clients.connect("disk0s1")  # it waits for the one that is leaving
    waited.join()
    assert bytes(second.read(5, 7)) == b"written"
    clients.leave(second)
    clients.close()


def test_one_that_was_taken_over_from_leaves_the_writer_alone(tmp_path: Path):
    def store_of(client: str) -> FileStore:
        return FileStore.open_file(tmp_path / client, {"disk size": len(BYTES)})

    clients = Clients(MemorySource(BYTES), EXPORTS, store_of, named=True, second="take-over")
    old = clients.connect("one")
    old.write(0, b"old")
    new = clients.connect("one")
    with pytest.raises(OSError, match="taken this shadow over"):
        old.write(0, b"too late")
    clients.leave(old)
    new.write(3, b"new")
    newer = clients.connect("one/disk")
    assert bytes(newer.read(0, 6)) == b"oldnew"
    clients.leave(new)
    clients.leave(newer)
    store_of("one").close()  # nobody holds it any more
    clients.close()


def test_a_line_is_news_once_a_minute():
    now = [0.0]
    repeats = Repeats(lambda: now[0])
    assert repeats.is_news("nbdkit: python.1: error: chunk 3")
    assert not repeats.is_news("nbdkit: python.17: error: chunk 3")
    assert repeats.is_news("nbdkit: python.1: error: chunk 4")
    now[0] = 61.0
    assert repeats.is_news("nbdkit: python.2: error: chunk 3")
    for number in range(10_000):
        repeats.is_news(f"line {number}")
    assert len(repeats._seen) <= 256
