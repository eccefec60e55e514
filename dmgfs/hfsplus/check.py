"""Checking a whole B-tree: every node from the root down, where reading files looks at the ones it needs only.

Rules that hold here: each node is visited once at most, so no damage makes this endless; a damaged node is reported and
the rest goes on. What a single node must be is checked where it is decoded (`dmgfs.hfsplus.btree`).
"""

from collections.abc import Iterator
from typing import Any

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.btree import BTree, TreeNode


def check_tree(tree: BTree[Any]) -> Iterator[CorruptImage]:
    """Everything that is wrong with the tree: damaged nodes, keys outside what the index above promises, leaves that the
    chain reaches in another order than the index, a wrong number of records. Raises OSError and Cold."""
    header = tree.header
    if header.root == 0:
        return
    seen: set[int] = set()
    leaves: list[TreeNode[Any]] = []
    whole = True
    todo: list[tuple[int, int, Any, Any]] = [(header.root, header.depth, None, None)]
    while todo:
        number, height, first, end = todo.pop()
        if number in seen:
            yield CorruptImage(tree.layer, f"node {number}", "two index records lead to it")
            whole = False
            continue
        seen.add(number)
        try:
            node = tree.node(number, height)
            below = [] if height == 1 else [tree.child(node, index) for index in range(node.count)]
        except CorruptImage as damage:
            yield damage
            whole = False
            continue
        if (first is not None and node.keys[0] < first) or (end is not None and node.keys[-1] >= end):
            yield CorruptImage(tree.layer, f"node {number}", "keys outside the range that the index gives it")
        if height == 1:
            leaves.append(node)
        ends = [*node.keys[1:], end]
        todo += [(below[index], height - 1, node.keys[index], ends[index]) for index in reversed(range(len(below)))]
    if not whole:
        return  # what is missing would make the rest look wrong
    for leaf, following in zip(leaves, [*(leaf.number for leaf in leaves[1:]), 0], strict=True):
        if leaf.flink != following:
            why = f"linked with node {leaf.flink}, the index says that {following} follows"
            yield CorruptImage(tree.layer, f"node {leaf.number}", why)
    records = sum(leaf.count for leaf in leaves)
    if records != header.leaf_records:
        why = f"{header.leaf_records} records claimed, {records} are there"
        yield CorruptImage(tree.layer, "header record", why)
