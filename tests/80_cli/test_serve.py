"""`dmgfs serve`: the disk in an image for NBD clients, read back by QEMU's and libnbd's tools; damage, TLS, limits."""

import errno
import os
import shutil
import signal
import subprocess

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.processes import errno_of
from exercise.daemon import becomes, has_ended
from exercise.mounted import dmgfs
from exercise.nbd import PARTITION, Nbd, is_refused, needs_nbdkit, said, serving

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
