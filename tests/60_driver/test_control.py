"""The control socket: one request, one answer; strangers, nonsense and clients that hang get nothing and break nothing."""

import errno
import json
import os
import socket
from array import array
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from builders.processes import NOBODY, as_user

from dmgfs.fuse import control
from dmgfs.fuse.control import ANSWER_MAX, MOST_CLIENTS, MOST_FILES, REQUEST_MAX, SECONDS, Control


async def _echo(request, files):
    return request.get("say")


async def _read(request, files):
    return [os.pread(file, 100, 0).decode() for file in files]


async def _refuse(request, files):
    raise OSError(errno.ENOSPC, "7 bytes are in use")


async def _fail(request, files):
    raise KeyError("mine")


async def _long(request, files):
    return "x" * ANSWER_MAX


HANDLERS = {"echo": _echo, "read": _read, "refuse": _refuse, "fail": _fail, "long": _long}


@pytest.fixture
async def server() -> AsyncIterator[Control]:
    server = Control(HANDLERS)
    server.start()
    yield server
    server.stop()


def _connect(server: Control) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(b"\0" + server.name)
    client.settimeout(10)
    return client


def _send(server: Control, data: bytes, files=()) -> bytes:
    with _connect(server) as client:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files))] if files else []
        client.sendmsg([data], rights)
        return client.recv(2 * ANSWER_MAX)


async def asked(server: Control, request: object, files=()) -> dict[str, object]:
    data = request if isinstance(request, bytes) else json.dumps(request).encode()
    return json.loads(await trio.to_thread.run_sync(_send, server, data, files))


def ask(do: str, **more: object) -> dict[str, object]:
    return {"dmgfs": 1, "do": do, **more}


async def test_an_answer(server):
    assert await asked(server, ask("echo", say={"a": [1, None]})) == {"dmgfs": 1, "answer": {"a": [1, None]}}


async def test_open_files_arrive_and_are_closed_afterwards(server, tmp_path):
    files = []
    for number in range(2):
        path = tmp_path / str(number)
        path.write_text(f"content {number}")
        files.append(os.open(path, os.O_RDONLY))
    before = len(os.listdir("/proc/self/fd"))
    assert (await asked(server, ask("read"), files))["answer"] == ["content 0", "content 1"]
    await trio.testing.wait_all_tasks_blocked()
    assert len(os.listdir("/proc/self/fd")) == before
    for file in files:
        os.close(file)


@pytest.mark.parametrize(
    ("request_", "number", "text"),
    [
        (b"\xff nonsense", errno.EPROTO, "JSON"),
        (b"[" * 10000, errno.EPROTO, "JSON"),
        (b"[1]", errno.EPROTO, "version"),
        ({"dmgfs": 2, "do": "echo"}, errno.EPROTO, "version 1"),
        ({"dmgfs": 1}, errno.EOPNOTSUPP, "cannot do that"),
        ({"dmgfs": 1, "do": ["echo"]}, errno.EOPNOTSUPP, "cannot do that"),
        ({"dmgfs": 1, "do": "refuse"}, errno.ENOSPC, "7 bytes are in use"),
        ({"dmgfs": 1, "do": "long"}, errno.EMSGSIZE, "answer is too long"),
        (b" " * (REQUEST_MAX + 1), errno.EMSGSIZE, "request is too long"),
    ],
)
async def test_what_cannot_be_answered_is_said(server, request_, number, text):
    answer = await asked(server, request_)
    assert answer["errno"] == number
    assert text in str(answer["error"])


async def test_a_failure_of_ours_does_not_end_the_server(server, caplog):
    answer = await asked(server, ask("fail"))
    assert "KeyError" in str(answer["error"])
    assert "'fail' failed" in caplog.text
    assert (await asked(server, ask("echo", say=1)))["answer"] == 1


async def test_more_files_than_allowed(server):
    answer = await asked(server, ask("read"), [0] * (MOST_FILES + 1))
    assert answer["errno"] == errno.EMSGSIZE


async def test_clients_that_hang_make_room_for_others(server, monkeypatch):
    monkeypatch.setattr(control, "SECONDS", 0.2)
    hanging = [_connect(server) for _ in range(MOST_CLIENTS)]
    try:
        assert (await asked(server, ask("echo", say="here")))["answer"] == "here"
    finally:
        for client in hanging:
            client.close()


async def test_who_goes_away_without_a_word(server):
    for _ in range(3 * MOST_CLIENTS):
        (await trio.to_thread.run_sync(_connect, server)).close()
    assert (await asked(server, ask("echo", say="here")))["answer"] == "here"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_strangers_learn_neither_the_name_nor_an_answer(server):
    with pytest.raises(PermissionError):
        server.told(NOBODY)
    assert server.told(0) == server.name
    request = b'{"dmgfs": 1, "do": "echo"}'
    answer = json.loads(await trio.to_thread.run_sync(as_user, NOBODY, NOBODY, _send, server, request))
    assert answer["errno"] == errno.EPERM


def test_the_limits_are_seconds_and_kilobytes():
    assert SECONDS <= 10
    assert REQUEST_MAX <= ANSWER_MAX <= 200 << 10  # what a Unix socket takes at once
