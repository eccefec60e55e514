"""Hard links to files and to folders, and what is hidden for their sake."""

import stat

import pytest
from builders.hfsplus import CREATED, PRIVATE, PRIVATE_FOLDERS, ROOT, HfsPlusBuilder
from builders.walk import children, names, opened, walk, whole

from dmgfs.errors import CorruptImage

ALIAS = b"fdrpMACS" + bytes(24)


def test_all_names_of_a_linked_file_are_one_file() -> None:
    builder = HfsPlusBuilder()
    folder = builder.folder(ROOT, "folder")
    inode = builder.inode(
        1234567,
        b"shared",
        3,
        mode=0o100640,
        uid=5,
        gid=6,
        dates=(CREATED + 9,) * 5,
        attributes={"com.example": b"1"},
        resource=b"fork",
        finder=b"TEXTttxt" + bytes(24),
    )
    for parent, name in ((ROOT, "one"), (ROOT, "two"), (folder, "three")):
        builder.file_link(parent, name, 1234567)
    volume = opened(builder.build().data)
    for parent, name in ((ROOT, "one"), (ROOT, "two"), (folder, "three")):
        node = volume.find(parent, name)
        assert node is not None
        assert (node.cnid, node.parent, node.name, node.nlink) == (inode, parent, name, 3)
        assert (node.mode, node.uid, node.gid, node.special) == (stat.S_IFREG | 0o640, 5, 6, 0)
        assert node.modified == 1_000_000_009
        assert node.finder_info.startswith(b"TEXTttxt")
        assert whole(volume.data(node)) == b"shared"
        assert whole(volume.resource(node)) == b"fork"
        assert {name: whole(value) for name, value in volume.attributes(node).items()} == {"com.example": b"1"}
    direct = volume.node(inode)
    assert (direct.cnid, direct.nlink, direct.data_size, direct.name) == (inode, 3, 6, "iNode1234567")
    assert whole(volume.data(direct)) == b"shared"


def test_a_symbolic_link_may_have_several_names() -> None:
    builder = HfsPlusBuilder()
    builder.inode(99, b"target", 2, mode=0o120755)
    builder.file_link(ROOT, "link", 99)
    volume = opened(builder.build().data)
    (node,) = children(volume, ROOT)
    assert stat.S_ISLNK(node.mode)
    assert whole(volume.data(node)) == b"target"


@pytest.mark.parametrize("count", [0, 1])
def test_a_link_count_of_nothing_is_one(count: int) -> None:
    builder = HfsPlusBuilder()
    inode = builder.inode(99, b"", count)
    assert opened(builder.build().data).node(inode).nlink == 1


def test_a_count_outside_the_private_folder_means_nothing() -> None:
    builder = HfsPlusBuilder()
    builder.inode(99, b"", 2)
    cnid = builder.file(ROOT, "iNode5", special=7)
    stray = builder.file(builder.private_folder(), "temp5", special=7)
    volume = opened(builder.build().data)
    assert volume.node(cnid).nlink == 1
    assert volume.node(stray).nlink == 1


def test_a_link_without_target_is_listed_and_broken() -> None:
    builder = HfsPlusBuilder()
    builder.private_folder()
    builder.file_link(ROOT, "lost", 99)
    builder.file(ROOT, "sound", b"data")
    volume = opened(builder.build().data)
    assert names(volume) == ["lost", "sound"]
    node = volume.find(ROOT, "lost")
    assert node is not None
    assert "does not exist" in (node.broken or "")
    assert volume.node(node.cnid).broken is not None
    with pytest.raises(CorruptImage, match="does not exist"):
        volume.data(node)
    assert volume.resource(node).size == 0


def test_without_a_private_folder_links_are_broken() -> None:
    builder = HfsPlusBuilder()
    builder.file_link(ROOT, "lost", 99)
    node = opened(builder.build().data).find(ROOT, "lost")
    assert node is not None
    assert node.broken


def test_the_date_decides_where_there_is_no_target() -> None:
    builder = HfsPlusBuilder()
    builder.private_folder()
    builder.file(ROOT, "mine", b"data", special=99, finder=b"hlnkhfs+" + bytes(24), dates=(CREATED + 77,) * 5)
    builder.inode(50, b"linked", 1)
    builder.file_link(ROOT, "other date", 50, created=CREATED + 77)
    volume = opened(builder.build().data)
    mine, link = children(volume, ROOT)
    assert (mine.broken, whole(volume.data(mine))) == (None, b"data")
    assert whole(volume.data(link)) == b"linked"


def test_a_link_is_followed_once() -> None:
    builder = HfsPlusBuilder()
    private = builder.private_folder()
    builder.file_link(private, "iNode50", 50)  # to itself
    builder.file_link(private, "iNode51", 50)  # to a link
    builder.file_link(ROOT, "to itself", 50)
    builder.file_link(ROOT, "to a link", 51)
    volume = opened(builder.build().data)
    assert [whole(volume.data(node)) for node in children(volume, ROOT)] == [b"", b""]


def test_a_file_link_to_a_folder_and_a_folder_link_to_a_file_are_broken() -> None:
    builder = HfsPlusBuilder()
    builder.folder(builder.private_folder(), "iNode50")
    builder.file(builder.private_folder(PRIVATE_FOLDERS), "dir_51")
    builder.folder_link(builder.private[PRIVATE_FOLDERS], "dir_52", 52)
    builder.file_link(ROOT, "a", 50)
    builder.folder_link(ROOT, "b", 51)
    builder.folder_link(ROOT, "c", 52)
    volume = opened(builder.build().data)
    assert all("another kind" in (node.broken or "") for node in children(volume, ROOT))


def test_a_file_in_place_of_the_private_folder() -> None:
    builder = HfsPlusBuilder()
    builder.file(ROOT, PRIVATE, b"data")
    builder.file_link(ROOT, "link", 50)
    volume = opened(builder.build().data)
    assert names(volume) == ["link", PRIVATE]
    assert children(volume, ROOT)[0].broken


# -- folders -----------------------------------------------------------------------------------------------------------


def test_folder_links_are_folders() -> None:
    builder = HfsPlusBuilder()
    target = builder.linked_folder(200)
    builder.file(target, "inside", b"1")
    builder.folder_link(ROOT, "one", 200)
    builder.folder_link(ROOT, "two", 200)
    volume = opened(builder.build().data)
    for name in ("one", "two"):
        node = volume.find(ROOT, name)
        assert node is not None
        assert (node.cnid, node.name, stat.S_ISDIR(node.mode), node.broken) == (target, name, True, None)
        assert names(volume, node.cnid) == ["inside"]
    assert [path for path, _ in walk(volume)] == ["one", "one/inside", "two", "two/inside"]


def test_a_finder_alias_is_an_ordinary_file() -> None:
    builder = HfsPlusBuilder()
    builder.linked_folder(200)
    builder.file(ROOT, "Applications", b"alias", finder=ALIAS, record_flags=0x82, special=200)
    volume = opened(builder.build().data)
    (node,) = children(volume, ROOT)
    assert stat.S_ISREG(node.mode)
    assert whole(volume.data(node)) == b"alias"


@pytest.mark.parametrize("reference", [0, 5, 15])
def test_references_below_the_first_number_are_no_folder_links(reference: int) -> None:
    builder = HfsPlusBuilder()
    builder.private_folder(PRIVATE_FOLDERS)
    builder.folder_link(ROOT, "alias", reference)
    (node,) = children(opened(builder.build().data), ROOT)
    assert (stat.S_ISREG(node.mode), node.broken) == (True, None)


def test_a_lost_folder_link_is_broken() -> None:
    builder = HfsPlusBuilder()
    builder.private_folder(PRIVATE_FOLDERS)
    builder.folder_link(ROOT, "lost", 200)
    (node,) = children(opened(builder.build().data), ROOT)
    assert "folder 200" in (node.broken or "")


def test_a_folder_link_to_a_folder_it_lies_in_is_broken() -> None:
    builder = HfsPlusBuilder()
    target = builder.linked_folder(200)
    below = builder.folder(target, "below")
    builder.folder_link(target, "itself", 200)
    builder.folder_link(below, "above", 200)
    builder.folder_link(ROOT, "entry", 200)
    volume = opened(builder.build().data)
    listed = {path: node.broken for path, node in walk(volume)}
    assert list(listed) == ["entry", "entry/below", "entry/below/above", "entry/itself"]
    assert "which it lies in" in (listed["entry/itself"] or "")
    assert "which it lies in" in (listed["entry/below/above"] or "")


def test_a_link_in_a_folder_without_a_known_place_does_not_hang() -> None:
    builder = HfsPlusBuilder()
    builder.linked_folder(200)
    for cnid, parent in ((300, 301), (301, 300)):
        builder.folder(parent, "loop", cnid=cnid)
    builder.folder_link(300, "link", 200)
    (link, loop) = children(opened(builder.build().data), 300)
    assert link.broken
    assert loop.name == "loop"


# -- hidden items ------------------------------------------------------------------------------------------------------


def private_items(attributes: int) -> HfsPlusBuilder:
    builder = HfsPlusBuilder(attributes=attributes)
    builder.inode(50, b"linked", 1)
    builder.linked_folder(60)
    for name in (".journal", ".journal_info_block", ".Trashes", "visible"):
        builder.file(ROOT, name)
    folder = builder.folder(ROOT, "sub")
    builder.file(folder, ".journal")
    return builder


def test_private_items_are_neither_listed_nor_found() -> None:
    volume = opened(private_items(0x2100).build().data)
    assert names(volume) == [".Trashes", "sub", "visible"]
    for name in (PRIVATE, PRIVATE_FOLDERS, ".journal", ".journal_info_block"):
        assert volume.find(ROOT, name) is None
    sub = volume.find(ROOT, "sub")
    assert sub is not None
    assert names(volume, sub.cnid) == [".journal"]


def test_without_a_journal_its_name_is_an_ordinary_one() -> None:
    assert ".journal" in names(opened(private_items(0x100).build().data))


def test_private_items_are_shown_on_request() -> None:
    volume = opened(private_items(0x2100).build().data, show_private=True)
    assert names(volume) == [
        ".HFS+ Private Directory Data\r",
        ".journal",
        ".journal_info_block",
        ".Trashes",
        "sub",
        "visible",
        PRIVATE,
    ]
    assert volume.find(ROOT, PRIVATE) is not None
