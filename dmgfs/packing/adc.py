"""ADC encoder: greedy, for CPython's speed. What it writes is read by every ADC decoder; Apple's own finds more matches.

Rules that hold here:
- a match is found through its first four bytes, so the format's matches of three bytes are not used: they save one byte;
- only the last two stretches of 64 KiB are remembered, which bounds memory; the window is 64 KiB anyway;
- where nothing matches for a while, the steps grow: incompressible data shall not cost more than it can gain.
"""

_WINDOW = 1 << 16
_LONGEST = 67
_PATIENCE = 6  # 2^6 bytes without a match, then steps of two, and so on


def encode(data: bytes) -> bytes:
    """The ADC stream of `data`; empty for no data."""
    out = bytearray()
    recent: dict[bytes, int] = {}
    older: dict[bytes, int] = {}
    border = _WINDOW
    number = int.from_bytes
    literal = at = 0
    last = len(data) - 4
    while at <= last:
        if at >= border:
            older, recent = recent, {}
            border += _WINDOW
        key = data[at : at + 4]
        match = recent.get(key)
        if match is None:
            match = older.get(key, -_WINDOW - 1)
        recent[key] = at
        distance = at - match
        if distance > _WINDOW:
            at += 1 + (at - literal >> _PATIENCE)
            continue
        if literal < at:
            _literals(out, data, literal, at)
        length = min(_LONGEST, len(data) - at)
        here, there = data[at : at + length], data[match : match + length]
        if here != there:
            # The lowest bit that differs tells the first byte that does.
            difference = number(here, "little") ^ number(there, "little")
            length = (difference & -difference).bit_length() - 1 >> 3
        distance -= 1
        if length <= 18 and distance < 1024:
            out += bytes((length - 3 << 2 | distance >> 8, distance & 0xFF))
        else:
            out += bytes((0x40 | length - 4, distance >> 8, distance & 0xFF))
        recent[data[at + 1 : at + 5]] = at + 1
        at = literal = at + length
    _literals(out, data, literal, len(data))
    return bytes(out)


def _literals(out: bytearray, data: bytes, start: int, end: int) -> None:
    for at in range(start, end, 128):
        run = data[at : min(at + 128, end)]
        out.append(0x7F + len(run))
        out += run
