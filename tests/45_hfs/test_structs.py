"""The struct.Struct twins say the same as the declarations."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.hfs import structs


def test_sizes() -> None:
    assert structs.MasterDirectoryBlock.sizeof() == structs.MDB_SIZE
    assert structs.BTHdrRec.sizeof() == 106
    assert structs.CatalogDirectory.sizeof() == structs.CATALOG_DIRECTORY.size == 70
    assert structs.CatalogFile.sizeof() == structs.CATALOG_FILE.size == 102
    assert structs.NodeDescriptor.sizeof() == structs.NODE_DESCRIPTOR.size == 14
    assert structs.ExtKeyRec.sizeof() == structs.EXTENT_KEY.size == 1 + structs.EXTENT_KEY_LENGTH
    assert structs.CatKeyRec.sizeof() == structs.CATALOG_KEY.size == 7


PLAIN: list[tuple[Any, struct.Struct, list[str]]] = [
    (
        structs.NodeDescriptor,
        structs.NODE_DESCRIPTOR,
        ["ndFLink", "ndBLink", "ndType", "ndNHeight", "ndNRecs", "ndResv2"],
    ),
    (structs.CatKeyRec, structs.CATALOG_KEY, ["ckrKeyLen", "ckrParID", "ckrCNameLen"]),
    (structs.ExtKeyRec, structs.EXTENT_KEY, ["xkrKeyLen", "xkrFkType", "xkrFNum", "xkrFABN"]),
]


@pytest.mark.parametrize(("declaration", "twin", "names"), PLAIN, ids=["node", "catalog key", "extent key"])
@given(data=st.binary(min_size=16, max_size=16))
def test_plain_twins(declaration: Any, twin: struct.Struct, names: list[str], data: bytes) -> None:
    parsed = declaration.parse(data)
    assert twin.unpack_from(data) == tuple(parsed[name] for name in names)


@given(st.binary(min_size=70, max_size=70))
def test_directory(data: bytes) -> None:
    parsed = structs.CatalogDirectory.parse(data)
    assert structs.CATALOG_DIRECTORY.unpack(data) == (
        parsed.cdrType, parsed.dirFlags, parsed.dirVal, parsed.dirDirID, parsed.dirCrDat, parsed.dirMdDat,
        parsed.dirBkDat, parsed.dirUsrInfo + parsed.dirFndrInfo,
    )  # fmt: skip


@given(st.binary(min_size=102, max_size=102))
def test_file(data: bytes) -> None:
    parsed = structs.CatalogFile.parse(data)
    assert structs.CATALOG_FILE.unpack(data) == (
        parsed.cdrType, parsed.filFlags, parsed.filUsrWds, parsed.filFlNum, parsed.filLgLen, parsed.filPyLen,
        parsed.filRLgLen, parsed.filRPyLen, parsed.filCrDat, parsed.filMdDat, parsed.filBkDat, parsed.filFndrInfo,
        structs.ExtDataRec.build(parsed.filExtRec), structs.ExtDataRec.build(parsed.filRExtRec),
    )  # fmt: skip


@given(st.binary(min_size=12, max_size=12))
def test_extents(data: bytes) -> None:
    fields = structs.EXTENT_RECORD.unpack(data)
    parsed = structs.ExtDataRec.parse(data)
    assert fields == tuple(number for extent in parsed for number in (extent.xdrStABN, extent.xdrNumABlks))


@given(st.binary(min_size=14, max_size=14), st.binary(max_size=31))
def test_thread(head: bytes, name: bytes) -> None:
    data = head + bytes([len(name)]) + name
    parsed = structs.CatalogThread.parse(data)
    kind, parent, length = structs.CATALOG_THREAD.unpack_from(data)
    assert (kind, parent) == (parsed.cdrType, parsed.thdParID)
    assert data[structs.CATALOG_THREAD.size :][:length].decode("mac_roman") == parsed.thdCName
