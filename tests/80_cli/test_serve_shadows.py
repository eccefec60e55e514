"""`dmgfs serve` with shadows, of one and of many, kept and fought over; what is left when a server ends or is killed."""

import errno
import os
import random
import signal
import threading

from builders.processes import errno_of
from exercise.daemon import becomes
from exercise.here import here
from exercise.mounted import dmgfs
from exercise.nbd import PARTITION, is_refused, needs_nbdkit, said, serving

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
