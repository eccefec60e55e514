"""Encoders for test images: `pack(codec, data)` gives what the codec's decoder must turn back into `data`.

None of them shares code with dmgfs. ADC and LZBITMAP have no library; those two encoders are here, plain and slow.
"""

import bz2
import lzma
import struct
import zlib

import lzfse

# A short input makes liblzfse write one LZVN block; longer ones become entropy-coded blocks.
LZVN_MOST = 4000


def pack(codec: str, data: bytes) -> bytes:
    """codec: a name of dmgfs.codecs.CODECS."""
    if codec == "zlib":
        return zlib.compress(data, 6)
    if codec == "bzip2":
        return bz2.compress(data)
    if codec == "xz":
        return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=1)
    if codec == "lzfse":
        return lzfse.compress(data) if data else b"bvx$"
    return {"adc": adc, "lzvn": lzvn, "lzbitmap": lzbitmap}[codec](data)


def adc(data: bytes) -> bytes:
    """Greedy, with all three kinds of operation."""
    out = bytearray()
    seen: dict[bytes, int] = {}
    literal = at = 0

    def flush(end: int) -> None:
        nonlocal literal
        while literal < end:
            run = data[literal : min(end, literal + 128)]
            out.append(0x80 | len(run) - 1)
            out.extend(run)
            literal += len(run)

    while at < len(data):
        key = data[at : at + 4]
        match = seen.get(key, -1) if len(key) == 4 else -1
        seen[key] = at
        if match < 0 or at - match > 65536:
            at += 1
            continue
        flush(at)
        length, most = 4, min(67, len(data) - at)
        while length < most and data[match + length] == data[at + length]:
            length += 1
        distance = at - match - 1
        if length <= 18 and distance < 1024:
            out += bytes((length - 3 << 2 | distance >> 8, distance & 255))
        else:
            out += bytes((0x40 | length - 4, distance >> 8, distance & 255))
        at = literal = at + length
    flush(len(data))
    return bytes(out)


def lzvn(data: bytes) -> bytes:
    """The payload of the block liblzfse writes for short input; long or incompressible input becomes literals."""
    stream = lzfse.compress(data) if 0 < len(data) <= LZVN_MOST else b""
    if stream[:4] == b"bvxn":
        (length,) = struct.unpack_from("<I", stream, 8)
        return stream[12 : 12 + length]
    out = bytearray()
    for at in range(0, len(data), 271):
        run = data[at : at + 271]
        out += bytes((0xE0, len(run) - 16)) + run if len(run) >= 16 else bytes((0xE0 | len(run),)) + run
    return bytes(out) + b"\x06" + bytes(7)


def lzbitmap(data: bytes) -> bytes:
    """Period 1 and 8 copies and literals, repeated groups as one operation."""
    out = bytearray(b"ZBM\t")
    for at in range(0, len(data), 0x8000):
        out += _lzbitmap_chunk(data, at, min(at + 0x8000, len(data)))
    return bytes(out) + b"\x06\0\0\0\0\0"


def _lzbitmap_chunk(data: bytes, start: int, end: int) -> bytes:
    size = end - start
    literals, periods, bitmaps = bytearray(), bytearray(), bytearray()
    nibbles: list[int] = []
    period = 8
    at = start
    while at < end:
        group = range(at, min(at + 8, end))
        wanted = max((1, 8), key=lambda p: sum(i >= p and data[i] == data[i - p] for i in group))
        bitmap = sum((i < wanted or data[i] != data[i - wanted]) << k for k, i in enumerate(group))
        operation = 0 if wanted == period else 1
        if operation:
            periods.append(wanted)
        literals += bytes(data[i] for k, i in enumerate(group) if bitmap >> k & 1)
        nibbles.append(operation)
        bitmaps.append(bitmap)
        period = wanted
        at += 8
        # whole groups that only copy: table entry 0 is (bitmap 0, no new period)
        run = 0
        while (
            at + 8 * (run + 1) <= end
            and at >= period
            and all(data[i] == data[i - period] for i in range(at + 8 * run, at + 8 * run + 8))
        ):
            run += 1
        if run and end - at > 8 and run >= 4:
            nibbles += [3, 15]
            rest = run - 4
            while rest >= 15:
                nibbles.append(15)
                rest -= 15
            nibbles.append(rest)
            at += 8 * run
    nibbles += [0] * (2 + len(nibbles) % 2)
    packed = bytes(nibbles[i] | nibbles[i + 1] << 4 for i in range(0, len(nibbles), 2))
    o1 = 15 + len(literals)  # offsets count from the chunk, whose header takes 6 of the 15
    o2 = o1 + len(periods)
    o3 = o2 + len(bitmaps)
    chunk = (
        b"".join(n.to_bytes(3, "little") for n in (o1, o2, o3)) + literals + periods + bitmaps + packed + bytes(17)
    )
    if len(chunk) >= size:
        chunk = data[start:end]
    return (len(chunk) + 6).to_bytes(3, "little") + size.to_bytes(3, "little") + chunk
