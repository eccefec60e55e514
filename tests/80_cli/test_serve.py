"""`dmgfs serve`: the disk in an image for NBD clients. Read back by QEMU's and libnbd's tools; shadows of one and of
many, kept and fought over; damage, kills, TLS."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import rangeserver
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.partitions import Part, apm_disk
from builders.processes import errno_of
from exercise.daemon import becomes, has_ended
from exercise.here import here
from exercise.mounted import dmgfs
from exercise.nbd import Nbd, Server, serving

needs_nbdkit = pytest.mark.skipif(shutil.which("nbdkit") is None, reason="needs nbdkit and its Python plug-in")

PARTITION = 64 * 512


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two partitions of random digits and zeros behind an Apple map, 2 MiB, compressed; and the bytes beside it."""
    folder = tmp_path_factory.mktemp("made")
    raw = apm_disk(
        [Part("Apple_partition_map", 1, 63), Part("Apple_HFS", 64, 800), Part("Apple_HFS", 864, 1000)], 2 << 20
    )
    raw[PARTITION : 1864 * 512] = random.Random(7).randbytes(450 * 512).hex().encode() + bytes(900 * 512)
    raw[1900 * 512 :] = random.Random(8).randbytes((len(raw) - 1900 * 512) // 2).hex().encode()
    (folder / "raw").write_bytes(raw)
    assert here("convert", folder / "raw", folder / "disk.dmg", "--to", "udzo", "--chunk", "512").code == 0
    return folder


@pytest.fixture
def disk(made) -> Iterator[Path]:
    """The compressed one. It must be the same afterwards."""
    before = hashlib.sha256((made / "disk.dmg").read_bytes()).digest()
    yield made / "disk.dmg"
    assert hashlib.sha256((made / "disk.dmg").read_bytes()).digest() == before, "the image was changed"


@pytest.fixture
def raw(made) -> bytearray:
    return bytearray((made / "raw").read_bytes())


def said(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_refused(server: Server, export: str = "") -> bool:
    try:
        server.connect(export).close()
    except ConnectionRefusedError:
        return True
    return False


# -- without a shadow ------------------------------------------------------------------------------------------------


@needs_nbdkit
def test_other_peoples_clients_read_what_is_in_the_image(disk, raw, made, tmp_path):
    with serving(disk, tmp_path) as server:
        assert "identical" in said("qemu-img", "compare", "-f", "raw", "-F", "raw", made / "raw", server.uri)
        said("nbdcopy", server.uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == raw
        shown = said("nbdinfo", server.uri)
        assert "is_read_only: true" in shown
        assert "can_multi_conn: true" in shown
        listed = said("nbdinfo", "--list", server.uri)
        names = [line.split('"')[1] for line in listed.splitlines() if line.startswith("export=")]
        assert names == ["disk", "disk0s1", "disk0s2", "disk0s3"]
        extents = [line.split()[:3] for line in said("nbdinfo", "--map", server.uri).splitlines()]
        zeros = [(int(start), int(size)) for start, size, kind in extents if kind == "3"]
        assert sum(size for _, size in zeros) > 300 * 512
        assert all(not any(raw[start : start + size]) for start, size in zeros)
        with server.connect("disk0s2") as part:
            assert part.all() == raw[PARTITION : 864 * 512]
            assert not part.writable
            assert errno_of(lambda: part.write(0, b"x")) == errno.EPERM
        for name in ("disk0s9", "\udcff\udcfe", "x" * 4000, "\0"):
            assert is_refused(server, name)
        assert "there is no export 'disk0s9'; there are: disk, disk0s1" in server.log
        assert server.stop() == 0
    assert not (tmp_path / "socket").exists()


@needs_nbdkit
def test_names_of_ones_own_and_a_default(disk, raw, tmp_path):
    with serving(disk, tmp_path, "--export", "root=disk0s2", "-x", "all") as server:
        with server.connect() as first, server.connect("all") as whole, server.connect("root") as root:
            assert (first.size, whole.size, root.size) == (800 * 512, len(raw), 800 * 512)
        assert is_refused(server, "disk0s3")


@needs_nbdkit
def test_an_encrypted_image_in_the_background(raw, tmp_path):
    (tmp_path / "image").write_bytes(encrypt_v2(bytes(raw)))
    (tmp_path / "secret").write_bytes(PASSPHRASE)
    pid, log = tmp_path / "pid", tmp_path / "log"
    ended = dmgfs(
        *("serve", tmp_path / "image", "--passphrase-file", tmp_path / "secret", "--nbd", "127.0.0.1:0"),
        *("--pid-file", pid, "--log", log),
    )
    assert (ended.code, ended.err) == (0, "")
    number = int(pid.read_text())
    try:
        uri = ended.out.strip()
        assert uri.startswith("nbd://127.0.0.1:")
        said("nbdcopy", uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == raw
    finally:
        os.kill(number, signal.SIGTERM)
    assert has_ended(number)
    assert becomes(lambda: not pid.exists())


@needs_nbdkit
def test_a_damaged_chunk_is_eio_for_who_reads_it_and_nobody_else(made, raw, tmp_path):
    image = tmp_path / "damaged.dmg"
    data = bytearray((made / "disk.dmg").read_bytes())
    data[100_000:100_100] = bytes(100)
    image.write_bytes(data)
    with serving(image, tmp_path) as server, server.connect() as client, server.connect() as other:
        bad = [at for at in range(0, len(raw), 4096) if errno_of(lambda: client.read(at, 4096)) == errno.EIO]  # noqa: B023
        assert 0 < len(bad) <= 64
        for at in range(0, len(raw), 4096):
            if at not in bad:
                assert other.read(at, 4096) == raw[at : at + 4096]
        assert "block table 2 ('" in server.log
        assert "Traceback" not in server.log
        assert server.process.poll() is None


@needs_nbdkit
def test_a_log_is_not_filled_by_one_who_tries_again(made, tmp_path):
    image, pid, log, path = (tmp_path / name for name in ("damaged.dmg", "pid", "log", "socket"))
    data = bytearray((made / "disk.dmg").read_bytes())
    data[100_000:100_100] = bytes(100)
    image.write_bytes(data)
    ended = dmgfs("serve", image, "--nbd", f"unix:{path}", "--pid-file", pid, "--log", log)
    assert (ended.code, ended.out, ended.err) == (0, f"nbd+unix:///?socket={path}\n", "")
    number = int(pid.read_text())
    try:
        for _ in range(5):
            with Nbd(path) as client:
                failed = [errno_of(lambda at=at: client.read(at, 4096)) for at in range(0, client.size, 4096)]
                assert errno.EIO in failed
        assert becomes(lambda: "block table 2 ('" in log.read_text())
        assert log.read_text().count("zlib") == 1
    finally:
        os.kill(number, signal.SIGTERM)
        assert has_ended(number)


# -- shadows ---------------------------------------------------------------------------------------------------------


@needs_nbdkit
def test_what_is_written_to_memory(disk, raw, tmp_path):
    with serving(disk, tmp_path, "--shadow", "ram:8M") as server:
        with server.connect() as client:
            client.write(PARTITION + 700, b"written")
            raw[PARTITION + 700 : PARTITION + 707] = b"written"
            client.zero(300_000, 200_001)
            raw[300_000:500_001] = bytes(200_001)
            client.write(4096 * 200, b"\xaa" * 4096, fua=True)
            client.flush()
            client.trim(4096 * 199, 4096 * 2)  # what was never written stays, what was is zeros
            raw[4096 * 200 : 4096 * 201] = bytes(4096)
            assert client.all() == raw
            assert errno_of(lambda: client.read(len(raw) - 1, 2)) == errno.EINVAL
        with server.connect("disk0s2") as part:
            assert part.read(700, 7) == b"written"
        said("nbdcopy", server.uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == raw


@needs_nbdkit
def test_a_full_shadow_is_enospc_and_nothing_is_lost(disk, raw, tmp_path):
    with serving(disk, tmp_path, "--shadow", "ram:512K") as server, server.connect() as client:
        client.write(0, b"first")
        raw[0:5] = b"first"
        assert errno_of(lambda: client.write(4096, random.Random(1).randbytes(1 << 20))) == errno.ENOSPC
        assert client.all() == raw


@needs_nbdkit
def test_a_shadow_file_has_its_limit(disk, raw, tmp_path):
    shadow = tmp_path / "shadow"
    with serving(disk, tmp_path, "--shadow", shadow, "--shadow-limit", "2M") as server, server.connect() as client:
        source = random.Random(2)
        for at in range(0, len(raw), 4096):
            data = source.randbytes(4096)
            if errno_of(lambda: client.write(at, data)) == errno.ENOSPC:  # noqa: B023
                break
            raw[at : at + 4096] = data
        assert 500_000 < at < len(raw) - 4096
        assert client.all() == raw
    assert shadow.stat().st_size <= 2 << 20


@needs_nbdkit
def test_a_shadow_file_is_kept_and_has_one_writer(disk, raw, tmp_path):
    shadow = tmp_path / "shadow"
    with serving(disk, tmp_path, "--shadow", shadow) as server:
        with server.connect() as client:
            client.write(5000, b"kept")
            assert is_refused(server)
            assert is_refused(server, "disk0s2")
            assert f"the shadow {shadow} has a writer already; one client at a time may write" in server.log
        assert becomes(lambda: not is_refused(server))
        assert here("convert", disk, tmp_path / "busy", "--shadow", shadow).code == 75
        again = dmgfs("serve", disk, "--nbd", f"unix:{tmp_path}/other", "--shadow", shadow)
        assert again.code == 75
        assert not (tmp_path / "other").exists()
        assert server.stop() == 0
    raw[5000:5004] = b"kept"
    with (
        serving(disk, tmp_path, "--shadow", shadow, "--read-only") as server,
        server.connect() as one,
        server.connect() as two,
    ):
        assert one.all() == two.all() == raw
        assert not one.writable
    look_on = ("--second-client", "read-only")
    with (
        serving(disk, tmp_path, "--shadow", shadow, *look_on) as server,
        server.connect() as one,
        server.connect() as two,
    ):
        assert (one.writable, two.writable) == (True, False)
        one.write(0, b"seen at once")
        assert two.read(0, 12) == b"seen at once"
    assert here("convert", disk, tmp_path / "new", "--shadow", shadow).code == 0
    raw[0:12] = b"seen at once"
    assert (tmp_path / "new").read_bytes() == raw
    with serving(disk, tmp_path, "--shadow", shadow, "--recycle") as server, server.connect() as client:
        assert client.read(0, 12) != b"seen at once"


@needs_nbdkit
def test_who_comes_back_takes_over_from_what_is_left_of_it(disk, tmp_path):
    options = ("--shadow", tmp_path / "shadow", "--second-client", "take-over")
    with serving(disk, tmp_path, *options) as server, server.connect() as old, server.connect() as new:
        new.write(0, b"new")
        assert errno_of(lambda: old.write(0, b"old")) == errno.ESHUTDOWN
        assert old.read(0, 3) == b"new"


@needs_nbdkit
def test_each_connection_has_memory_of_its_own(disk, raw, tmp_path):
    with serving(disk, tmp_path, "--shadow", "ram:2M", "--per-client") as server:
        clients = [server.connect() for _ in range(4)]
        models = [bytearray(raw) for _ in clients]
        failed: list[BaseException] = []

        def work(number: int) -> None:
            source = random.Random(number)
            try:
                for _ in range(40):
                    at, data = source.randrange(len(raw) - 5000), source.randbytes(source.randrange(1, 5000))
                    clients[number].write(at, data)
                    models[number][at : at + len(data)] = data
                assert clients[number].all() == models[number]
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        for client in clients:
            client.close()
        with server.connect() as fresh:
            assert fresh.all() == raw


@needs_nbdkit
def test_a_fleet_finds_its_changes_by_name(disk, raw, tmp_path):
    folder = tmp_path / "fleet"
    folder.mkdir()
    with serving(disk, tmp_path, "--shadow", folder) as server:
        with server.connect("alpha") as alpha, server.connect("beta/disk0s2") as beta:
            assert is_refused(server, "alpha/disk0s2")
            alpha.write(PARTITION, b"alpha's")
            beta.write(0, b"beta's ")
        with server.connect("beta") as beta, server.connect("alpha/disk0s2") as alpha:
            assert beta.read(PARTITION, 7) == b"beta's "
            assert alpha.read(0, 7) == b"alpha's"
        assert sorted(os.listdir(folder)) == ["alpha.shadow", "beta.shadow"]
        for name in ("", "disk", "disk0s2", "../alpha", ".alpha", "a" * 65, "alpha/nothing", "alpha/../beta", "a\nb"):
            assert is_refused(server, name), name
        assert sorted(os.listdir(folder)) == ["alpha.shadow", "beta.shadow"]
        assert "every client has a shadow of its own" in server.log
    with serving(disk, tmp_path, "--shadow", folder, "--known-clients") as server:
        assert is_refused(server, "gamma")
        with server.connect("alpha") as alpha:
            assert alpha.read(PARTITION, 7) == b"alpha's"
    (folder / "broken.shadow").write_bytes((folder / "alpha.shadow").read_bytes()[: 3 * 4096])
    (folder / "alien.shadow").write_bytes(b"something else")
    with serving(disk, tmp_path, "--shadow", folder) as server:
        for name in ("broken", "broken", "alien"):
            assert is_refused(server, name)
        assert "'broken': its shadow: " in server.log
        assert "'alien': its shadow: " in server.log
        assert here("shadow", "check", folder / "broken.shadow").code == 76  # nobody holds it
        with server.connect("alpha") as alpha:
            assert alpha.read(PARTITION, 7) == b"alpha's"
    assert here("convert", disk, tmp_path / "new", "--shadow", folder / "alpha.shadow").code == 0
    raw[PARTITION : PARTITION + 7] = b"alpha's"
    assert (tmp_path / "new").read_bytes() == raw


# -- ends ------------------------------------------------------------------------------------------------------------


@needs_nbdkit
def test_a_server_that_is_asked_to_stop_leaves_everything_in_the_file(disk, raw, tmp_path):
    shadow = tmp_path / "shadow"
    with serving(disk, tmp_path, "--shadow", shadow) as server, server.connect() as client:
        client.write(9000, b"not flushed by anybody")
        assert server.stop() == 0
    raw[9000:9022] = b"not flushed by anybody"
    assert here("convert", disk, tmp_path / "new", "--shadow", shadow).code == 0
    assert (tmp_path / "new").read_bytes() == raw


@needs_nbdkit
def test_a_client_that_takes_no_answers_does_not_keep_the_server(disk, tmp_path):
    with serving(disk, tmp_path) as server, server.connect() as deaf:
        deaf.ask_only(100, 0, 1 << 20)
        assert server.stop() == 0
    assert not (tmp_path / "socket").exists()


@needs_nbdkit
def test_a_server_that_is_killed_leaves_what_was_flushed(disk, raw, tmp_path):
    shadow = tmp_path / "shadow"
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(3):
        with serving(disk, tmp_path, "--shadow", shadow) as server:
            client = server.connect()
            writes = [
                (source.randrange(len(raw) - 9000), source.randbytes(source.randrange(1, 9000))) for _ in range(60)
            ]
            flushed = source.randrange(10, 50)
            for number, (at, data) in enumerate(writes):
                client.write(at, data)
                if number == flushed:
                    client.flush()
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
            client.cut()
        checked = here("shadow", "check", shadow)
        assert (checked.code, checked.err) == (0, "")
        assert here("convert", disk, tmp_path / "new", "--shadow", shadow, "--force").code == 0
        found = (tmp_path / "new").read_bytes()
        # A state after some write, none of those that were flushed missing.
        states = [bytes(raw)]
        for at, data in writes:
            raw[at : at + len(data)] = data
            states.append(bytes(raw))
        assert found in states[flushed + 1 :]
        raw[:] = found


@needs_nbdkit
def test_the_socket_of_a_killed_server_is_taken_over_and_that_of_a_living_one_is_not(disk, tmp_path):
    with serving(disk, tmp_path) as server:
        ended = dmgfs("serve", disk, "--nbd", f"unix:{server.socket}")
        assert ended.code == 75
        assert "somebody listens there" in ended.err
        server.stop(signal.SIGKILL)
    assert (tmp_path / "socket").exists()
    with serving(disk, tmp_path) as server, server.connect() as client:
        assert client.size == 2 << 20
    (tmp_path / "file").write_text("precious")
    ended = dmgfs("serve", disk, "--nbd", f"unix:{tmp_path}/file")
    assert (ended.code, ended.err) == (
        73,
        f"dmgfs: serve: unix:{tmp_path}/file: it is there and is no socket; name another path\n",
    )
    assert (tmp_path / "file").read_text() == "precious"


# -- TLS and limits --------------------------------------------------------------------------------------------------


@needs_nbdkit
@pytest.mark.skipif(shutil.which("psktool") is None, reason="needs psktool")
def test_keys_that_were_shared_before(disk, tmp_path):
    keys = tmp_path / "keys"
    said("psktool", "-u", "alice", "-p", keys)
    with serving(disk, tmp_path, "--tls-psk", keys) as server:
        uri = f"nbds+unix://alice@/?socket={server.socket}&tls-psk-file={keys}"
        assert said("nbdinfo", "--size", uri).strip() == str(2 << 20)
        assert is_refused(server)
        said("psktool", "-u", "alice", "-p", tmp_path / "wrong")
        wrong = uri.replace(str(keys), str(tmp_path / "wrong"))
        assert subprocess.run(["nbdinfo", wrong], capture_output=True, check=False).returncode != 0


@needs_nbdkit
def test_no_more_clients_than_wanted(disk, tmp_path):
    with serving(disk, tmp_path, "--limit", "2") as server:
        with server.connect(), server.connect():
            assert is_refused(server)
        assert becomes(lambda: not is_refused(server))


# -- what cannot be had ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        ["--nbd", "unix:"],
        ["--nbd", "host:port"],
        ["--nbd", "/a/path"],
        ["--nbd", ":70000"],
        ["--per-client"],
        ["--shadow", "ram,compress=zstd"],
        ["--shadow", "nowhere/"],
        ["--shadow", "ram", "--read-only"],
        ["--shadow", "ram", "--recycle"],
        ["--shadow", "ram", "--shadow-limit", "1G"],
        ["--shadow", "ram", "--second-client", "kill"],
        ["--known-clients"],
        ["--force-base"],
        ["--limit", "-1"],
        ["--limit", "many"],
        ["--tls", "require"],
        ["--tls-verify-peer"],
    ],
)
def test_wrong_words_are_64(disk, tmp_path, wrong):
    ended = here("serve", disk, *(["--nbd", f"unix:{tmp_path}/socket"] if "--nbd" not in wrong else []), *wrong)
    assert ended.code == 64
    [line] = ended.err.splitlines()
    assert line.startswith("dmgfs: serve: ")
    assert not (tmp_path / "socket").exists()


@needs_nbdkit
def test_exports_that_are_not_there_are_64(disk, tmp_path):
    for export in ("root=disk0s9", "a/b", "=disk"):
        ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket", "--export", export)
        assert ended.code == 64


def nbdkit_that(folder: Path, script: str) -> None:
    (folder / "nbdkit").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nbdkit").chmod(0o755)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            "echo 'cannot open plugin python' >&2; exit 1",
            "no Python plug-in (cannot open plugin python); install it: ",
        ),
        ("echo python_version=3.2.1", f"nbdkit has Python 3.2 inside, and dmgfs runs on 3.{sys.version_info[1]}"),
    ],
)
def test_an_nbdkit_that_cannot_take_us_in_is_69(disk, tmp_path, monkeypatch, script, text):
    nbdkit_that(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket")
    assert ended.code == 69
    assert text in ended.err
    assert len(ended.err.splitlines()) == 1


def test_no_nbdkit_is_69_with_what_to_install(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *words, **more: None)
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket")
    assert ended.code == 69
    assert "apt-get install nbdkit nbdkit-plugin-python" in ended.err


def test_a_server_that_nbdkit_does_not_begin_is_71_with_its_word(disk, tmp_path):
    nbdkit_that(
        tmp_path,
        f"[ $1 != --foreground ] && echo python_version=3.{sys.version_info[1]} && exit; echo why >&2; exit 1",
    )
    done = subprocess.run(
        [sys.executable, "-m", "dmgfs", "serve", disk, "--nbd", f"unix:{tmp_path}/socket"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 71
    assert done.stderr == "why\ndmgfs: serve: nbdkit did not start\n"
    assert not (tmp_path / "socket").exists()


@needs_nbdkit
def test_a_shadow_of_another_disk_is_78(disk, tmp_path):
    (tmp_path / "other").write_bytes(bytes(1 << 20))
    with serving(tmp_path / "other", tmp_path, "--shadow", tmp_path / "shadow"):
        pass
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket", "--shadow", tmp_path / "shadow")
    assert ended.code == 78


@needs_nbdkit
def test_a_damaged_shadow_is_76_and_an_address_that_cannot_be_had_74(disk, tmp_path):
    shadow = tmp_path / "shadow"
    with serving(disk, tmp_path, "--shadow", shadow) as server, server.connect() as client:
        client.write(5000, b"written")
    shadow.write_bytes(shadow.read_bytes()[: 3 * 4096])
    ended = here("serve", disk, "--nbd", f"unix:{tmp_path}/socket", "--shadow", shadow)
    assert ended.code == 76
    assert ended.err.startswith(f"dmgfs: {shadow}: ")
    for address, code in ((f"unix:{tmp_path}/{'x' * 200}", 74), (f"unix:{tmp_path}/no/socket", 66)):
        ended = here("serve", disk, "--nbd", address)
        assert ended.code == code
        assert len(ended.err.splitlines()) == 1


@needs_nbdkit
def test_an_image_behind_a_url(made, raw, tmp_path):
    options = ("--network-cache", f"{tmp_path}/cache:64M", "--shadow", tmp_path / "shadow")
    with rangeserver.serving((made / "disk.dmg").read_bytes()) as origin:
        url = origin.url.replace("://", "://me:secret@")
        with serving(url, tmp_path, *options) as server:
            assert b"secret" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
            with server.connect() as client:
                assert client.all() == raw
                client.write(100, b"kept here")
            kept = sum(file.stat().st_blocks * 512 for file in (tmp_path / "cache").rglob("*"))
            assert kept > (made / "disk.dmg").stat().st_size  # all of it, not what the command looked at
            assert server.stop() == 0
        with serving(url, tmp_path, *options) as server, server.connect() as client:
            assert client.read(100, 9) == b"kept here"
