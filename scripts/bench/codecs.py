#!/usr/bin/env python3
"""How fast every decoder is here: MB/s of decoded bytes, with one thread and with two, on chunks as images have them.
What a mount makes of it: `run --only codecs`. ADC, "lzfse, ours" and "lzvn, ours" are Python code: a second thread does not
help.

    scripts/bench/codecs.py [--size MIB] [--chunk KIB] [--json] [FILE ...]

The data is FILEs (default: programs and libraries of this machine) cut into chunks. Best of three runs each.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from builders.packing import LZVN_MOST, pack

from dmgfs.codecs import CODECS, decoder
from dmgfs.codecs.lzfse import decode_slowly
from dmgfs.codecs.lzvn import expand

SECONDS = 1.0  # what one measurement should take at least


def sample(files: list[Path], size: int) -> bytes:
    """`size` bytes of real data."""
    data = bytearray()
    for file in files or sorted(path for path in Path("/usr/bin").iterdir() if path.is_file()):
        data += file.read_bytes()[: size - len(data)]
        if len(data) >= size:
            return bytes(data)
    sys.exit(f"codecs.py: the files have {len(data)} bytes, {size} are needed: name more of them")


def speed(decode: Callable[[bytes, int], object], chunks: list[tuple[bytes, int]], threads: int) -> float:
    """MB/s over all chunks, best of three."""

    def one(chunk: tuple[bytes, int]) -> int:
        decode(*chunk)
        return chunk[1]

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            done, start = 0, time.perf_counter()
            while time.perf_counter() - start < SECONDS / 3:
                done += sum(pool.map(one, chunks))
            best = max(best, done / (time.perf_counter() - start) / 1e6)
    return best


def lzvn_alone(data: bytes, expected: int) -> bytearray:
    out = bytearray()
    expand(data, out, expected)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4, help="MiB of data (default 4)")
    parser.add_argument("--chunk", type=int, default=256, help="KiB in a chunk (default 256)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    data = sample(arguments.files, arguments.size << 20)
    rows = []
    decoders = {codec: (codec, decoder(codec)) for codec in CODECS}
    decoders["lzfse, ours"] = ("lzfse", decode_slowly)
    decoders["lzvn, ours"] = ("lzvn", lzvn_alone)
    for name, (codec, decode) in decoders.items():
        size = LZVN_MOST if codec == "lzvn" else arguments.chunk << 10
        some = data[: len(data) // 8] if name.endswith("ours") else data
        chunks = [(pack(codec, some[at : at + size]), len(some[at : at + size])) for at in range(0, len(some), size)]
        ratio = sum(len(packed) for packed, _ in chunks) / sum(length for _, length in chunks)
        row = {"codec": name, "ratio": round(ratio, 3)}
        for threads in (1, 2):
            row[f"mb_s_{threads}"] = round(speed(decode, chunks, threads), 1)
        rows.append(row)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'codec':<14}{'ratio':>7}{'1 thread':>12}{'2 threads':>12}   MB/s{'times':>8}")
    for row in rows:
        times = float(row["mb_s_2"]) / max(float(row["mb_s_1"]), 0.1)
        print(f"{row['codec']:<14}{row['ratio']:>7}{row['mb_s_1']:>12}{row['mb_s_2']:>12}{times:>14.2f}x")


if __name__ == "__main__":
    main()
