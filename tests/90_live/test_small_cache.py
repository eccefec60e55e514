"""A cache smaller than one chunk of the image: nothing can be kept, so every request has to be made whole in a worker. It
is slow and it is right."""

import hashlib
import os
from pathlib import Path

import pytest
from builders.decmpfs import pack
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build
from exercise.mounted import mounted

pytestmark = pytest.mark.kernel

CHUNK = 1 << 20
CONTENT = hashlib.shake_128(b"content").digest(3 * CHUNK + 12345)
COMPRESSED = bytes(range(256)) * 1000


@pytest.fixture(scope="module", params=["zlib", "lzfse"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = HfsPlusBuilder(block_size=4096)
    builder.file(ROOT, "large", CONTENT)
    for number in range(200):
        builder.file(ROOT, f"file {number}", b"%d" % number)
    attribute, fork = pack(8, COMPRESSED)
    builder.file(ROOT, "packed", flags=0x20, resource=fork, attributes={"com.apple.decmpfs": attribute})
    tagged = builder.file(ROOT, "tagged", b"x", resource=CONTENT[:100_000])
    builder.attribute(tagged, "fork", b"f" * 9000, as_fork=True)
    builder.inode(7, b"shared", 1)
    builder.file_link(ROOT, "link", 7)
    disk = bytes(builder.build(spare_blocks=16).data)
    path = tmp_path_factory.mktemp("chunks") / "image.dmg"
    pieces = [Piece(request.param, disk[at : at + CHUNK]) for at in range(0, len(disk), CHUNK)]
    path.write_bytes(build([Table("disk", pieces)]).bytes)
    return path


@pytest.mark.parametrize("shadow", [False, True], ids=["read-only", "shadow"])
def test_everything_reads_right(image, place, shadow):
    with mounted(image, place, "--cache", "64K", *(["--shadow", "ram:16M"] if shadow else [])):
        names = os.listdir(place)
        assert len(names) == 204
        assert sum(os.stat(place / name).st_size for name in names) > len(CONTENT)
        assert (place / "file 7").read_bytes() == b"7"
        assert hashlib.sha256((place / "large").read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
        assert (place / "packed").read_bytes() == COMPRESSED
        assert (place / "link").read_bytes() == b"shared"
        assert os.getxattr(place / "tagged", "user.fork") == b"f" * 9000
        assert (place / "..namedfork/tagged/rsrc").read_bytes() == CONTENT[:100_000]
        with open(place / "large", "rb", buffering=0) as file:
            for at in (CHUNK - 100, 2 * CHUNK - 1, 3 * CHUNK + 12000):
                assert os.pread(file.fileno(), 200, at) == CONTENT[at : at + 200]
        if shadow:
            with open(place / "large", "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"changed", CHUNK - 3)
                expected = CONTENT[: CHUNK - 3] + b"changed" + CONTENT[CHUNK + 4 :]
                assert os.pread(file.fileno(), 8192, CHUNK - 4096) == expected[CHUNK - 4096 : CHUNK + 4096]
