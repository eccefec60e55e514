#!/usr/bin/env python3
"""One image, many clients: `fleet.py [--clients N,N,...] [--image FILE] [--size MiB]`. Root only; nginx.

An origin on loopback counts requests and bytes. Before it stands nginx as a caching proxy, with an empty cache each time.
So many mounts as clients, each with a cache of its own memory and none on the disk, as if each were a machine; all read
every file at once, and what they read is compared with what the image was made of. Then the same without the proxy and with
one `--network-cache` that all mounts share, as the containers of one machine would; then with neither. Exit 1 if a byte was
wrong.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from builders.rangeserver import RangeServer, serving  # noqa: E402
from exercise.mounted import DMGFS, mounted  # noqa: E402

NGINX = """
daemon off; master_process off; pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {work}/access.log;
    client_body_temp_path {work}/body; proxy_temp_path {work}/temp;
    fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    proxy_cache_path {work}/cache keys_zone=images:10m max_size=4g;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            slice 1m;                                   # the proxy asks the origin for aligned parts of 1 MiB,
            proxy_set_header Range $slice_range;
            proxy_cache images;
            proxy_cache_key $uri$slice_range;           # keeps each,
            proxy_cache_valid 200 206 1h;
            proxy_cache_lock on;                        # and asks once, however many clients wait
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://127.0.0.1:{origin};
        }}
    }}
}}
"""


class Row(NamedTuple):
    """Of one run. origin, proxy: requests; bytes: that the origin sent."""

    way: str
    clients: int
    origin: int
    bytes: int
    proxy: int
    seconds: float


def make_image(work: Path, mib: int) -> Path:
    """A tree of files, half of each random, as UDZO."""
    tree = work / "tree"
    chance = random.Random(1)
    for number in range(mib * 4):
        file = tree / f"folder {number % 20}" / f"file {number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(128 << 10) + b"the same in all of them\n" * 5461)
    image = work / "image.dmg"
    subprocess.run([DMGFS, "create", tree, image, "--format", "udzo"], check=True, stdout=subprocess.DEVNULL)
    return image


def digest(root: Path) -> str:
    """Over all names and contents."""
    whole = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            whole.update(str(path.relative_to(root)).encode())
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@contextmanager
def proxy(origin: RangeServer, work: Path) -> Iterator[str]:
    """nginx before the origin, its cache empty; its URL."""
    place = work / "nginx"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    port = origin.port + 1 if origin.port < 65000 else origin.port - 1
    (place / "conf").write_text(NGINX.format(work=place, port=port, origin=origin.port))
    process = subprocess.Popen(["nginx", "-p", place, "-c", place / "conf"], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            sys.exit((place / "error.log").read_text())
        yield f"http://127.0.0.1:{port}/image.dmg"
    finally:
        process.terminate()
        process.wait()


def requests_of(work: Path) -> int:
    log = work / "nginx" / "access.log"
    return log.read_text().count("\n") if log.exists() else 0


def run(way: str, clients: int, url: str, origin: RangeServer, work: Path, right: str, cache: str) -> Row:
    origin.requests.clear()
    origin.seen.clear()
    origin.sent = 0
    started = time.monotonic()
    with ExitStack() as mounts:
        roots = []
        for number in range(clients):
            place = work / "mounts" / str(number)
            place.mkdir(parents=True, exist_ok=True)
            options = ["--network-cache", cache, "--cache", "8M", "--log", str(work / "log")]
            roots.append(mounts.enter_context(mounted(url, place, *options)))
        with ThreadPoolExecutor(clients) as pool:
            found = list(pool.map(_read, roots))
    if set(found) != {right}:
        sys.exit(f"{way}, {clients} clients: {sum(one != right for one in found)} of them read something else")
    seconds = time.monotonic() - started
    return Row(way, clients, len(origin.requests), origin.sent, requests_of(work), seconds)


def _read(root: Path) -> str:
    """In a process of its own: threads of one would wait for each other."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import fleet; print(fleet.digest(fleet.Path(sys.argv[2])))"
    command = [sys.executable, "-c", code, Path(__file__).parent, root]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", default="1,2,5,10,25,50", help="how many at once")
    parser.add_argument("--image", type=Path, help="instead of one made here")
    parser.add_argument("--size", type=int, default=32, help="MiB of the files of the image made here")
    parser.add_argument("--ways", default="through nginx,shared cache,no cache", help="which of them")
    args = parser.parse_args()
    numbers = [int(number) for number in args.clients.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        image = args.image or make_image(work, args.size)
        data = image.read_bytes()
        with mounted(image, work / "here") as root:
            right = _read(root)
        print(f"image of {len(data) / (1 << 20):.1f} MiB")
        print(
            f"{'way':16}{'clients':>8}{'requests at origin':>20}{'MiB at origin':>15}{'at proxy':>10}{'seconds':>9}"
        )
        with serving(data) as origin:
            for way in args.ways.split(","):
                for clients in numbers if way != "no cache" else [number for number in numbers if number <= 10]:
                    with ExitStack() as stack:
                        url, cache = origin.url, "none"
                        shutil.rmtree(work / "nginx", ignore_errors=True)
                        if way == "through nginx":
                            url = stack.enter_context(proxy(origin, work))
                        elif way == "shared cache":
                            shutil.rmtree(work / "cache", ignore_errors=True)
                            cache = f"{work / 'cache'}:1G"
                        row = run(way, clients, url, origin, work, right, cache)
                    print(
                        f"{row.way:16}{row.clients:8}{row.origin:20}{row.bytes / (1 << 20):15.1f}"
                        f"{row.proxy:10}{row.seconds:9.1f}",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
