"""PostgreSQL: a cluster in the mount, pgbench, an immediate shutdown and recovery, the server's own checks; with a shadow
in a file also kill -9 of the daemon under load. What was committed must be there."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from exercise.daemon import has_ended
from exercise.workloads.home import Home, run

CLIENTS, EACH = 4, 150


def programs() -> Path | None:
    """Where the newest installed version has its programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Cluster:
    """A database cluster in `data`. Its programs run as the user postgres; it listens on a socket in `sockets` only."""

    def __init__(self, data: Path, sockets: Path) -> None:
        bin = programs()
        assert bin is not None
        self.bin, self.data, self.sockets = bin, data, sockets
        self.log = sockets / "log"

    def command(self, program: str, *words: str | Path) -> list[str]:
        return [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            str(self.bin / program),
            *map(str, words),
        ]

    def run(self, program: str, *words: str | Path, stdin: str | None = None) -> str:
        # The locale's files may be absent; C is always there.
        return run(
            *self.command(program, *words),
            cwd=self.sockets,
            stdin=stdin,
            PGHOST=str(self.sockets),
            PGDATABASE="postgres",
        )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.sockets} -c max_wal_size=64MB"
        self.run("pg_ctl", "start", "-s", "-w", "-t", "120", "-D", self.data, "-l", self.log, "-o", options)

    def stop(self, mode: str) -> None:
        self.run("pg_ctl", "stop", "-s", "-w", "-t", "120", "-D", self.data, "-m", mode)

    def ask(self, text: str) -> str:
        return self.run("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", stdin=text).strip()

    def process(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def require_sums(self) -> int:
        """pgbench's own rule: every account, teller and branch has what the history says. Returns the transactions."""
        counts = self.ask(
            "SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
            " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),"
            " (SELECT count(*) FROM pgbench_history)"
        ).split("|")
        assert len(set(counts[:4])) == 1, counts
        return int(counts[4])

    def amcheck(self) -> None:
        self.run("pg_amcheck", "--install-missing", "--heapallindexed", "--parent-check", "postgres")

    def dump(self) -> list[str]:
        """All data, without the random word that newer versions put around it."""
        return [
            line for line in self.run("pg_dump").splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
        ]


@contextlib.contextmanager
def sockets() -> Iterator[Path]:
    user = pwd.getpwnam("postgres")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        yield Path(folder)


def live(home: Home) -> None:
    user = pwd.getpwnam("postgres")
    data = home.place / "cluster"
    data.mkdir(mode=0o700)
    os.chown(data, user.pw_uid, user.pw_gid)
    with sockets() as place:
        cluster = Cluster(data, place)
        cluster.run("initdb", "-D", data, "--data-checksums", "--no-locale", "-E", "UTF8", "-A", "trust")
        try:
            exercise(home, cluster)
        except BaseException:
            if cluster.log.exists():
                shutil.copy(cluster.log, Path(tempfile.gettempdir()) / "dmgfs-postgres.log")
            with contextlib.suppress(OSError, ValueError, AssertionError):
                cluster.stop("immediate")
            raise


def exercise(home: Home, cluster: Cluster) -> None:
    cluster.start()
    cluster.run("pgbench", "-i", "-q", "-s", "1")
    cluster.run("pgbench", "-n", "-c", str(CLIENTS), "-t", str(EACH))
    done = CLIENTS * EACH
    assert cluster.require_sums() == done
    cluster.stop("immediate")
    cluster.start()
    assert cluster.require_sums() == done
    cluster.amcheck()
    kills = 0
    if home.lasts:
        cluster.ask("CREATE TABLE kept (number integer PRIMARY KEY)")
        newest = -1
        for turn in range(3):
            newest = killed_under_load(home, cluster, newest, 60 + 40 * turn)
            kills += 1
            cluster.require_sums()
            cluster.amcheck()
    dump = cluster.dump()
    total = cluster.require_sums()
    cluster.stop("fast")
    cluster.run("pg_checksums", "--check", "-D", cluster.data)
    if home.lasts:
        home.leave()
        home.enter()
        cluster.run("pg_checksums", "--check", "-D", cluster.data)
    cluster.start()
    assert cluster.dump() == dump
    cluster.stop("fast")
    home.notes.append(
        f"{total} transactions in the history, an immediate shutdown, {kills} times kill -9 of the daemon;"
        " sums, amcheck and checksums agree"
    )


def killed_under_load(home: Home, cluster: Cluster, newest: int, count: int) -> int:
    """pgbench works, and a client inserts numbers one by one; after `count` of them the daemon dies. Every number whose
    insertion was answered must be there afterwards. Returns the newest one."""
    environment = {**os.environ, "LC_ALL": "C", "PGHOST": str(cluster.sockets), "PGDATABASE": "postgres"}
    bench = subprocess.Popen(
        cluster.command("pgbench", "-n", "-c", "2", "-T", "60"),
        cwd=cluster.sockets, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    client = subprocess.Popen(
        cluster.command("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"),
        cwd=cluster.sockets, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    process = cluster.process()
    answered = newest
    with contextlib.suppress(BrokenPipeError):
        for number in range(newest + 1, newest + 1 + count):
            client.stdin.write(f"INSERT INTO kept VALUES ({number}) RETURNING number;\n")
            client.stdin.flush()
            answered = int(client.stdout.readline())
        client.stdin.write(f"INSERT INTO kept VALUES ({answered + 1}) RETURNING number;\n")
        client.stdin.flush()
    assert answered == newest + count
    home.kill()
    time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGQUIT)
    if not has_ended(process, 10):
        os.kill(process, signal.SIGKILL)
        assert has_ended(process)
    out, _ = client.communicate(timeout=60)
    answered = max([answered, *map(int, out.split())])
    bench.wait(60)
    home.enter_again()
    cluster.start()
    found = cluster.ask("SELECT count(*), coalesce(max(number), -1) FROM kept").split("|")
    assert int(found[1]) >= answered, f"{answered} was answered, {found[1]} is the newest"
    assert int(found[0]) == int(found[1]) + 1, found
    return int(found[1])
