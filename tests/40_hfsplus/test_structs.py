"""The struct twins of hot records read what the construct declarations say."""

from typing import Any

import pytest
from construct import Construct, ListContainer
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.hfsplus import structs


def flat(value: Any) -> list[Any]:
    """The numbers and byte strings of a parsed declaration in order."""
    if isinstance(value, dict):
        return [leaf for name, field in value.items() if name != "_io" for leaf in flat(field)]
    if isinstance(value, ListContainer):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


WHOLE = [
    (structs.ForkData, structs.FORK_DATA),
    (structs.NodeDescriptor, structs.NODE_DESCRIPTOR),
    (structs.CatalogKey, structs.CATALOG_KEY),
    (structs.CatalogThread, structs.CATALOG_THREAD),
    (structs.ExtentKey, structs.EXTENT_KEY),
    (structs.AttributeKey, structs.ATTRIBUTE_KEY),
]


@pytest.mark.parametrize(("declaration", "twin"), WHOLE)
@given(data=st.data())
def test_twin_reads_the_same(declaration: Construct, twin: Any, data: st.DataObject) -> None:
    assert declaration.sizeof() == twin.size
    raw = data.draw(st.binary(min_size=twin.size, max_size=twin.size))
    assert list(twin.unpack(raw)) == flat(declaration.parse(raw))


def catalog_fields(record: Any) -> list[Any]:
    """A catalog record in the order of the twins, which join the two Finder fields."""
    values = flat(record)
    at = values.index(record.userInfo, 15)
    return [*values[:at], record.userInfo + record.finderInfo, *values[at + 2 :]]


@given(st.binary(min_size=88, max_size=88))
def test_folder_record(raw: bytes) -> None:
    assert structs.CatalogFolder.sizeof() == structs.CATALOG_FOLDER.size == 88
    assert list(structs.CATALOG_FOLDER.unpack(raw)) == catalog_fields(structs.CatalogFolder.parse(raw))


@given(st.binary(min_size=248, max_size=248))
def test_file_record(raw: bytes) -> None:
    assert structs.CatalogFile.sizeof() == structs.CATALOG_FILE.size == 248
    record = structs.CatalogFile.parse(raw)
    expected = catalog_fields(record)[:18]
    for fork in (record.dataFork, record.resourceFork):
        expected += [fork.logicalSize, fork.totalBlocks]
    assert list(structs.CATALOG_FILE.unpack(raw)) == expected
    for fork, offset in (
        (record.dataFork, structs.DATA_FORK_OFFSET),
        (record.resourceFork, structs.RESOURCE_FORK_OFFSET),
    ):
        assert list(structs.FORK_DATA.unpack_from(raw, offset)) == flat(fork)


@given(st.binary(min_size=16, max_size=16))
def test_inline_attribute_header(raw: bytes) -> None:
    declared = structs.InlineAttribute.parse(raw)
    assert structs.INLINE_ATTRIBUTE_HEADER.unpack(raw) == (declared.recordType, declared.attrSize)


def test_sizes_of_the_specification() -> None:
    assert structs.VolumeHeader.sizeof() == 512
    assert structs.HeaderRecord.sizeof() == 106
    assert structs.WrapperBlock.sizeof() == 130
    assert structs.EXTENT_RECORD.size == 64
