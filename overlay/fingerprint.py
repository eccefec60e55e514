"""What tells one saved tree from another, whatever file it is in: the shadow above it is bound to this.

Rules that hold here:
- the same tree has the same fingerprint after compacting, moving, and being opened for writing and left as it was;
- contents count by the checksums of their pages, so nothing is read but the tree: as fast as loading it.
"""

import hashlib
import struct
from collections.abc import Sequence

from overlay.change import Name, Put, Shut, Target, White, Xattr
from overlay.pages import is_stored
from overlay.records import encode
from overlay.tree import Directory, File, Node, Tree

_RUN = struct.Struct("<QQ")
_SIZE = 16


def fingerprint(tree: Tree, sums: Sequence[int]) -> str:
    """Of a tree whose pages are in slots with these checksums: 32 digits. Objects without a name do not count."""
    digest = hashlib.blake2b(digest_size=_SIZE)
    for ino in sorted(tree.nodes):
        node = tree.nodes[ino]
        if node.attr.nlink:
            digest.update(b"".join(_node(node, sums)))
    return digest.hexdigest()


def _node(node: Node, sums: Sequence[int]) -> list[bytes]:
    ino, body = node.attr.ino, node.body
    parts = encode([Put(node.attr, node.parent)])
    parts += encode(Xattr(ino, name, value) for name, value in sorted((node.xattrs or {}).items()))
    if isinstance(body, bytes):
        parts += encode([Target(ino, body)])
    elif isinstance(body, Directory):
        parts += encode([Shut(ino)] if body.opaque else [])
        parts += encode(White(ino, name) for name in sorted(body.whiteouts))
        parts += encode(Name(ino, own.key, own.name, own.ino) for _, own in sorted(body.added.items()))
    elif isinstance(body, File):
        parts += [b"inline", _RUN.pack(body.limit, len(body.inline or b"")), body.inline or b""]
        for run in body.pages.walk() if body.pages is not None else ():
            stored = sums[run.slot : run.slot + run.length] if is_stored(run.slot) else ()
            for index in range(run.length):
                parts.append(_RUN.pack(run.page + index, stored[index] if stored else 1 << 32))
    return parts
