"""Writer of sparse images (`sprs`): bands of the disk in their order, those of zeros left out, behind index nodes.

Rules that hold here: a node is written when it is known whole, so its place stays a hole until then; the last band is
stored as long as the others.
"""

from array import array
from collections.abc import Sequence
from sys import byteorder

from dmgfs.container.sparseimage import HEADER_FIELDS, NODE_FIELDS, NODE_SIZE, Header, Node
from dmgfs.packing.output import Output
from dmgfs.packing.pieces import SECTOR, Piece

_HAS_DATA = 1


class SparseImageWriter:
    """sectors: of the disk. band: bytes. stored: how many bands were written."""

    def __init__(self, output: Output, sectors: int, band: int) -> None:
        self.stored = 0
        self._output = output
        self._sectors = sectors
        self._band = band
        self._node = 0  # where the node that is being filled stands
        self._nodes = 0
        self._numbers = array("I")
        self._at = 0
        output.extend(NODE_SIZE)

    def add(self, pieces: Sequence[Piece]) -> None:
        """The pieces of the next band."""
        self._at += 1
        if all(piece.data is None for piece in pieces):
            return
        band = b"".join(bytes(piece.length) if piece.data is None else piece.data for piece in pieces)
        if len(self._numbers) == self._room():
            following = self._output.size
            self._write_node(following)
            self._output.extend(following + NODE_SIZE)
            self._node, self._numbers = following, array("I")
            self._nodes += 1
        self._numbers.append(self._at)
        self.stored += 1
        self._output.append(band.ljust(self._band, b"\0"))

    def finish(self) -> None:
        """Writes the last node. The output is not committed."""
        self._write_node(0)

    def _room(self) -> int:
        return (NODE_SIZE - (NODE_FIELDS if self._node else HEADER_FIELDS)) // self._numbers.itemsize

    def _write_node(self, following: int) -> None:
        numbers = self._numbers[:]
        if byteorder == "little":
            numbers.byteswap()
        if self._node:
            fields = Node.build(
                {"number": self._nodes - 1, "flags": _HAS_DATA, "nextNodeOffset": following, "reserved": bytes(36)}
            )
        else:
            fields = Header.build(
                {
                    "version": 3,
                    "sectorsPerBand": self._band // SECTOR,
                    "flags": _HAS_DATA if numbers else 0,
                    "totalSectorsLow": self._sectors & 0xFFFFFFFF,
                    "nextNodeOffset": following,
                    "totalSectors": self._sectors,
                    "reserved": bytes(28),
                }
            )
        self._output.write(self._node, (fields + numbers.tobytes()).ljust(NODE_SIZE, b"\0"))
