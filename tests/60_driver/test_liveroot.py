"""What a live root is made of: the import guard, the watchdog, messages to the service manager."""

import importlib
import logging
import os
import socket
import subprocess
import sys
import time

import pytest
import trio

from dmgfs.fuse import hardening
from dmgfs.fuse.notify import Notifier
from dmgfs.fuse.preload import ImportGuard
from dmgfs.fuse.watchdog import Watchdog


def test_the_guard_refuses_what_is_new_and_says_so_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "something_new.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    guard = ImportGuard()
    guard.close()
    try:
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError, match="something_new"):
                importlib.import_module("something_new")
        assert importlib.import_module("json") is sys.modules["json"]
    finally:
        guard.open()
    assert guard.refused == ["something_new"]
    assert [record.message for record in caplog.records].count(
        "late import of something_new refused: its files may be gone"
    ) == 1
    importlib.import_module("something_new")
    del sys.modules["something_new"]


def test_preloading_imports_what_serving_needs_and_no_verbs():
    program = (
        "import sys\n"
        "from dmgfs.fuse.preload import preload\n"
        "assert preload() == len(sys.modules)\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    assert {
        "dmgfs.hfs.volume",
        "dmgfs.codecs.xz",
        "dmgfs.fuse.verbs",
        "overlay.recovery",
        "encodings.utf_16",
    } <= names
    assert not [name for name in names if name.startswith(("dmgfs.cli", "dmgfs.packing", "sqlite3"))]


def test_the_watchdog_sees_a_loop_that_stands_still(caplog):
    caplog.set_level(logging.INFO)
    watchdog = Watchdog(Notifier(), stall_seconds=0.2)

    async def main() -> None:
        watchdog.start()
        await trio.sleep(0.3)
        assert watchdog.stalls == 0
        time.sleep(0.6)  # noqa: ASYNC251  # that is the fault
        await trio.sleep(0.3)

    trio.run(main)
    watchdog.stop()
    assert watchdog.stalls == 1
    stall, end = [record.message for record in caplog.records if "the loop" in record.message]
    assert "in main" in stall
    assert "turns again" in end


def test_the_service_manager_hears_of_a_turning_loop(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        notifier = Notifier()
        assert notifier.watchdog_seconds == 0.3
        watchdog = Watchdog(notifier)

        async def main() -> None:
            watchdog.start()
            await trio.sleep(0.35)

        trio.run(main)
        watchdog.stop()
        notifier.close()
        heard = [manager.recv(100) for _ in range(3)]
    assert heard == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize("process", ["1", "nonsense"])
def test_a_watchdog_that_is_meant_for_another_process(tmp_path, monkeypatch, process):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        monkeypatch.setenv("WATCHDOG_PID", process)
        monkeypatch.setattr(os, "getppid", lambda: 7)
        notifier = Notifier()
        assert notifier.watchdog_seconds is None
        notifier.close()


def test_nobody_listens(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = Notifier()
    notifier.tell("READY=1")
    notifier.close()


def test_memory_is_not_locked_against_a_limit(monkeypatch):
    monkeypatch.setattr(hardening, "capable", lambda capability: False)
    monkeypatch.setattr(hardening.resource, "getrlimit", lambda which: (1 << 20, 1 << 20))
    held = hardening.lock_memory()
    assert not held.holds
    assert "1024 KiB" in held.detail


def test_the_mark_is_for_an_initrd_only(monkeypatch, tmp_path):
    monkeypatch.setattr(hardening, "INITRD_RELEASE", str(tmp_path / "initrd-release"))
    monkeypatch.delenv("DMGFS_INITRD", raising=False)
    assert not hardening.in_initrd()
    held = hardening.mark_as_root_storage()
    assert not held.holds
    assert "SurviveFinalKillSignal" in held.detail
    assert not hardening.register_with_sysvinit(str(tmp_path / "omitted")).holds
    (tmp_path / "initrd-release").touch()
    assert hardening.in_initrd()
    assert hardening.register_with_sysvinit(str(tmp_path / "omitted")).holds
    (file,) = (tmp_path / "omitted").iterdir()
    assert file.read_text() == f"{os.getpid()}\n"
