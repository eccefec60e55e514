"""Writer of UDIF images: the data fork as it comes, then the property list with the block tables, then the trailer.

Rules that hold here:
- runs are added in the order of the disk; zeros that follow one another become one run however long they are;
- the table's checksum covers the expanded runs and its zero runs, not those that nobody owns ("ignore"); the data fork's
  covers what is stored; the master those of the tables. That is what Apple's images have (see container/checksum.py);
- nothing depends on time, chance or this machine: the segment's identity comes from the checksums.
"""

import hashlib
import plistlib
from collections.abc import Iterable

from dmgfs.codecs.crc import crc32
from dmgfs.container.structs import (
    CODEC_OF,
    IGNORE,
    KOLY_SIZE,
    RAW,
    RUN,
    RUN_SIZE,
    SECTOR,
    TERMINATOR,
    ZERO,
    Koly,
    Mish,
    UDIFChecksum,
    type_name,
)
from dmgfs.packing.output import Output
from dmgfs.packing.pieces import Piece
from dmgfs.packing.tables import TablePlan

TYPE_OF = {codec: number for number, codec in CODEC_OF.items()}
ATTRIBUTES = "0x0050"
_ZEROS = bytes(1 << 20)
_CRC32 = 2
_FLATTENED = 1
_MARGIN = 8  # sectors that Apple's writer adds to the chunk for the decoder's buffer
_PLST = bytes(517) + b"\1\0\1" + bytes(512)
"""What Apple's writer puts into `plst`; nobody is known to read it."""


class UdifWriter:
    """Writes one image. For each table: `begin`, `add` in order, `end`; at last `finish`.

    codec: what packed pieces are compressed with, None if there are none. chunk: bytes of the largest piece. variant: of
    the trailer, DEVICE or PARTITION. runs: how many of each type were written, by name.
    """

    def __init__(self, output: Output, codec: str | None, chunk: int, variant: int) -> None:
        self.runs: dict[str, int] = {}
        self._output = output
        self._packed_type = TYPE_OF[codec] if codec else RAW
        self._buffers = chunk // SECTOR + _MARGIN
        self._variant = variant
        self._resources: list[dict[str, object]] = []
        self._sums = b""
        self._sectors = 0
        self._data_sum = 0
        self._table_sum = 0
        self._entries = bytearray()
        self._at = 0  # sectors into the table
        self._zeros = 0  # sectors of the zero run that is not closed yet
        self._plan: TablePlan | None = None

    def begin(self, plan: TablePlan) -> None:
        self._plan = plan
        self._entries = bytearray()
        self._table_sum = self._at = self._zeros = 0

    def add(self, pieces: Iterable[Piece]) -> None:
        """The next pieces of the table."""
        for piece in pieces:
            sectors = piece.length // SECTOR
            if piece.data is None:
                self._zeros += sectors
                continue
            self._close_zeros()
            self._table_sum = crc32(piece.data, self._table_sum)
            stored = piece.data if piece.packed is None else piece.packed
            self._data_sum = crc32(stored, self._data_sum)
            kind = RAW if piece.packed is None else self._packed_type
            self._run(kind, sectors, self._output.append(stored), len(stored))

    def _close_zeros(self) -> None:
        sectors, self._zeros = self._zeros, 0
        if not sectors:
            return
        assert self._plan is not None
        if not self._plan.free:
            for at in range(0, sectors * SECTOR, len(_ZEROS)):
                self._table_sum = crc32(_ZEROS[: sectors * SECTOR - at], self._table_sum)
        self._run(IGNORE if self._plan.free else ZERO, sectors, self._output.size, 0)

    def _run(self, kind: int, sectors: int, offset: int, length: int) -> None:
        self._entries += RUN.pack(kind, 0, self._at, sectors, offset, length)
        self._at += sectors
        name = type_name(kind)
        self.runs[name] = self.runs.get(name, 0) + 1

    def end(self) -> None:
        """The table is complete."""
        plan = self._plan
        self._close_zeros()
        assert plan is not None
        assert self._at == plan.sectors, f"{plan.name}: {self._at} of {plan.sectors} sectors"
        self._entries += RUN.pack(TERMINATOR, 0, self._at, 0, self._output.size, 0)
        packed = any(kind in CODEC_OF for kind, *_ in RUN.iter_unpack(self._entries))
        mish = Mish.build(
            {
                "Version": 1,
                "StartSector": plan.start,
                "SectorCount": plan.sectors,
                "DataOffset": 0,
                "BuffersNeeded": self._buffers if packed else 0,
                "Descriptor": plan.descriptor,
                "Reserved": bytes(24),
                "Checksum": _checksum(self._table_sum),
                "EntryCount": len(self._entries) // RUN_SIZE,
            }
        )
        self._resources.append(_resource(str(plan.id), plan.name, mish + self._entries, cf_name=True))
        self._sums += self._table_sum.to_bytes(4, "big")
        self._sectors = max(self._sectors, plan.start + plan.sectors)

    def finish(self) -> None:
        """Writes what follows the data fork. The output is not committed."""
        data_length = self._output.size
        fork = {"blkx": self._resources, "plst": [_resource("0", "", _PLST, cf_name=False)]}
        xml = plistlib.dumps({"resource-fork": fork}, sort_keys=False)
        master = crc32(self._sums, 0)
        identity = hashlib.sha256(self._sums + self._data_sum.to_bytes(4, "big") + data_length.to_bytes(8, "big"))
        trailer = Koly.build(
            {
                "Version": 4,
                "HeaderSize": KOLY_SIZE,
                "Flags": _FLATTENED,
                "RunningDataForkOffset": 0,
                "DataForkOffset": 0,
                "DataForkLength": data_length,
                "RsrcForkOffset": 0,
                "RsrcForkLength": 0,
                "SegmentNumber": 1,
                "SegmentCount": 1,
                "SegmentID": identity.digest()[:16],
                "DataChecksum": _checksum(self._data_sum),
                "XMLOffset": data_length,
                "XMLLength": len(xml),
                "Reserved1": bytes(64),
                "CodeSignatureOffset": 0,
                "CodeSignatureLength": 0,
                "Reserved2": bytes(40),
                "MasterChecksum": _checksum(master),
                "ImageVariant": self._variant,
                "SectorCount": self._sectors,
                "Reserved3": bytes(12),
            }
        )
        self._output.append(xml)
        self._output.append(trailer)


def _checksum(value: int) -> dict[str, object]:
    return {"Type": _CRC32, "Size": 32, "Value": value.to_bytes(4, "big").ljust(UDIFChecksum.Value.sizeof(), b"\0")}


def _resource(number: str, name: str, data: bytes, *, cf_name: bool) -> dict[str, object]:
    names: dict[str, object] = {"CFName": name} if cf_name else {}
    return {"Attributes": ATTRIBUTES, **names, "Data": data, "ID": number, "Name": name}
