"""Images in object storage: a server that speaks S3 (moto), and any other file system of fsspec's."""

import asyncio
import errno
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from exercise.mounted import dmgfs, mounted

from dmgfs.remote import RemoteSource, Settings, anything, open_remote
from dmgfs.remote.anything import Anything
from dmgfs.remote.blocks import BLOCK
from dmgfs.remote.fetcher import Fetcher

SAMPLE = Path(__file__).parents[1] / "data" / "sample.dmg"
URL = "s3://images/folder/sample.dmg"
DATA = os.urandom(6 * BLOCK) + b"end"


class Store:
    """The bucket, as its owner sees it."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self._client = boto3.client("s3", endpoint_url=endpoint)
        self._client.create_bucket(Bucket="images")

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket="images", Key=key, Body=data)

    def versions(self, key: str, *contents: bytes) -> list[str]:
        """Their ids, in a bucket that keeps all of them."""
        self._client.create_bucket(Bucket="versions")
        self._client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        put = self._client.put_object
        return [put(Bucket="versions", Key=key, Body=content)["VersionId"] for content in contents]

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket="images", Key=key)

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    program = (
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()\n"
        "print(server.get_host_and_port()[1], flush=True); input()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "moto does not start"
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "topsecret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    store = Store(endpoint)
    store.put("folder/sample.dmg", SAMPLE.read_bytes())
    store.put("data", DATA)
    yield store
    store.close()


def opened(url: str, folder: Path | None = None) -> "closing[RemoteSource]":
    return closing(open_remote(url, Settings(2.0, None if folder is None else str(folder))))


class TestS3:
    def test_reads_are_exact(self, store: Store, tmp_path: Path) -> None:
        for _ in range(2):
            with opened("s3://images/data", tmp_path / "kept") as source:
                assert source.size == len(DATA)
                assert source.read(0, len(DATA)) == DATA
                assert source.read(len(DATA) - 3, 3) == b"end"
        assert source.report()["blocks on disk"] > 4

    def test_a_changed_object(self, store: Store, tmp_path: Path) -> None:
        with opened("s3://images/data", tmp_path / "kept") as source:
            source.read(0, 10)
            store.put("data", DATA[::-1])
            with pytest.raises(OSError, match="has changed") as caught:
                source.read(4 * BLOCK, 10)
            assert caught.value.errno == errno.EIO
            store.put("data", b"short")
            with pytest.raises(OSError, match="has changed"):
                source.read(4 * BLOCK, 10)
            store.put("data", DATA)
            assert source.read(4 * BLOCK, 10) == DATA[4 * BLOCK : 4 * BLOCK + 10]

    def test_one_of_many_versions(self, store: Store, tmp_path: Path) -> None:
        first, second = store.versions("data", DATA, DATA[::-1])
        for version, content in ((first, DATA), (second, DATA[::-1])):
            with opened(f"s3://versions/data?versionId={version}", tmp_path) as source:
                assert source.read(0, len(content)) == content

    def test_a_deleted_object(self, store: Store) -> None:
        with opened("s3://images/data") as source:
            store.delete("data")
            with pytest.raises(OSError, match="no such object") as caught:
                source.read(4 * BLOCK, 10)
            assert caught.value.errno == errno.EIO

    def test_what_cannot_be_opened_is_one_line(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        said = dmgfs("info", "s3://images/missing.dmg")
        assert (said.code, said.err) == (
            66,
            "dmgfs: s3://images/missing.dmg: there is no such object on the server\n",
        )
        assert dmgfs("info", "s3://nowhere/missing.dmg").code == 66
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        said = dmgfs("info", URL, "--network-timeout", "1")
        assert (said.code, said.err.count("\n")) == (74, 1)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("HOME", "/nonexistent")
        said = dmgfs("info", URL, "--network-timeout", "1")
        assert (said.code, said.err.count("\n")) == (77, 1)
        assert "credentials" in said.err

    @pytest.mark.kernel
    def test_a_mount(self, store: Store, place: Path, tmp_path: Path) -> None:
        listing = dmgfs("ls", "-lR", SAMPLE).out
        assert dmgfs("ls", "-lR", URL).out == listing
        log = tmp_path / "log"
        with mounted(URL, place, "--shadow", "ram", "--log", log) as root:
            (root / "new").write_bytes(b"new\n")
            names = {path.name for path in root.iterdir()}
            assert (root / "new").read_bytes() == b"new\n"
        with mounted(SAMPLE, place) as root:
            assert {path.name for path in root.iterdir()} == names - {"new"}
        assert "topsecret" not in log.read_text()


class Hanging:
    """A file system of the old kind: it blocks, and hangs when told to."""

    async_impl = False

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.hangs = False
        self.data = DATA
        self.mtime = 1

    def invalidate_cache(self) -> None:
        pass

    def info(self, path: str) -> dict[str, Any]:
        return {"size": len(self.data), "type": "file", "mtime": self.mtime}

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        if self.hangs:
            self.let_go.wait(30)
        return self.data[start:end]


class TestAnythingElse:
    def opened(self, system: Hanging, timeout: float = 1.0) -> "closing[RemoteSource]":
        return closing(RemoteSource(Fetcher(Anything(lambda: (system, "path"), "old://path", "old"), timeout), None))

    def test_reads_and_changes(self) -> None:
        system = Hanging()
        with self.opened(system) as source:
            assert source.read(0, len(DATA)) == DATA
        with self.opened(system) as source:
            system.mtime = 2
            with pytest.raises(OSError, match="has changed"):
                source.read(0, 10)

    def test_one_that_hangs_is_eio_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(anything, "MOST_HANGING", 2)
        system = Hanging()
        with self.opened(system) as source:
            system.hangs = True
            for _ in range(4):
                started = time.monotonic()
                with pytest.raises(OSError, match=r"no answer|hang already") as caught:
                    source.read(0, 10)
                assert caught.value.errno == errno.EIO
                assert time.monotonic() - started < 2
            system.hangs = False
            system.let_go.set()
            time.sleep(0.1)
            assert source.read(0, 10) == DATA[:10]
        assert not asyncio.all_tasks(source._fetcher._loop)

    def test_memory_and_files(self, tmp_path: Path) -> None:
        import fsspec

        fsspec.filesystem("memory").pipe("/image", DATA)
        (tmp_path / "image").write_bytes(DATA)
        for url in ("memory://image", (tmp_path / "image").as_uri(), f"simplecache::{(tmp_path / 'image').as_uri()}"):
            with opened(url) as source:
                assert source.read(BLOCK - 5, 10) == DATA[BLOCK - 5 : BLOCK + 5]
        (tmp_path / "folder").mkdir()
        said = dmgfs("info", (tmp_path / "folder").as_uri())
        assert (said.code, said.err.count("\n")) == (66, 1)
        assert "bundles and segments are not read over a network" in said.err
