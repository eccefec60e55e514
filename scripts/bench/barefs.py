#!/usr/bin/env python3
"""The yardstick: the least that a file system in RAM can be with pyfuse3. `barefs.py MOUNTPOINT` serves in the foreground.

No lower, no copy-on-write, no checks, no budget: a dict of names per directory, a bytearray per file. What dmgfs takes
longer than this is the price of what dmgfs does; what this takes is the price of FUSE and Python.
"""

import errno
import os
import stat
import sys
import time

import pyfuse3
import trio

FOREVER = 1e9


class Node:
    def __init__(self, ino: int, mode: int, uid: int, gid: int, rdev: int = 0) -> None:
        self.ino, self.mode, self.uid, self.gid, self.rdev = ino, mode, uid, gid, rdev
        self.times = [time.time_ns()] * 3
        self.links = 1
        self.data = bytearray()
        self.names: dict[bytes, Node] = {}


class BareFs(pyfuse3.Operations):
    enable_writeback_cache = False

    def __init__(self) -> None:
        super().__init__()
        self.nodes = {1: Node(1, stat.S_IFDIR | 0o755, 0, 0)}
        self.next = 2

    def answer(self, node: Node) -> pyfuse3.EntryAttributes:
        out = pyfuse3.EntryAttributes()
        out.st_ino, out.st_mode, out.st_nlink = node.ino, node.mode, node.links
        out.st_uid, out.st_gid, out.st_rdev = node.uid, node.gid, node.rdev
        out.st_size, out.st_blocks = len(node.data), -(-len(node.data) // 512)
        out.st_atime_ns, out.st_mtime_ns, out.st_ctime_ns = node.times
        out.attr_timeout = out.entry_timeout = FOREVER
        return out

    def make(self, parent, name, mode, ctx, rdev=0):
        node = Node(self.next, mode & ~ctx.umask, ctx.uid, ctx.gid, rdev)
        self.next += 1
        self.nodes[node.ino] = self.nodes[parent].names[name] = node
        return node

    async def lookup(self, parent_inode, name, ctx):
        node = self.nodes[parent_inode].names.get(name)
        if node is None:
            absent = pyfuse3.EntryAttributes()
            absent.entry_timeout = FOREVER
            return absent
        return self.answer(node)

    async def getattr(self, inode, ctx):
        return self.answer(self.nodes[inode])

    async def setattr(self, inode, attr, fields, fh, ctx):
        node = self.nodes[inode]
        if fields.update_mode:
            node.mode = node.mode & ~0o7777 | attr.st_mode & 0o7777
        if fields.update_uid:
            node.uid = attr.st_uid
        if fields.update_gid:
            node.gid = attr.st_gid
        if fields.update_size:
            del node.data[attr.st_size :]
            node.data.extend(bytes(attr.st_size - len(node.data)))
        if fields.update_atime:
            node.times[0] = attr.st_atime_ns
        if fields.update_mtime:
            node.times[1] = attr.st_mtime_ns
        return self.answer(node)

    async def mknod(self, parent_inode, name, mode, rdev, ctx):
        return self.answer(self.make(parent_inode, name, mode, ctx, rdev))

    async def mkdir(self, parent_inode, name, mode, ctx):
        return self.answer(self.make(parent_inode, name, stat.S_IFDIR | mode, ctx))

    async def symlink(self, parent_inode, name, target, ctx):
        node = self.make(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        node.data = bytearray(target)
        return self.answer(node)

    async def readlink(self, inode, ctx):
        return bytes(self.nodes[inode].data)

    async def create(self, parent_inode, name, mode, flags, ctx):
        node = self.make(parent_inode, name, stat.S_IFREG | mode, ctx)
        return pyfuse3.FileInfo(fh=node.ino, keep_cache=True), self.answer(node)

    async def unlink(self, parent_inode, name, ctx):
        self.nodes[parent_inode].names.pop(name).links -= 1

    async def rmdir(self, parent_inode, name, ctx):
        names = self.nodes[parent_inode].names
        if names[name].names:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del names[name]

    async def rename(self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx):
        node = self.nodes[parent_inode_old].names.pop(name_old)
        self.nodes[parent_inode_new].names[name_new] = node

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, fh, start_id, token):
        for number, (name, node) in enumerate(list(self.nodes[fh].names.items())[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, self.answer(node), number):
                return

    async def open(self, inode, flags, ctx):
        if flags & os.O_TRUNC:
            self.nodes[inode].data.clear()
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh, off, size):
        return bytes(memoryview(self.nodes[fh].data)[off : off + size])

    async def write(self, fh, off, buf):
        data = self.nodes[fh].data
        if off > len(data):
            data.extend(bytes(off - len(data)))
        data[off : off + len(buf)] = buf
        return len(buf)

    async def release(self, fh):
        pass

    async def fsync(self, fh, datasync):
        pass

    async def getxattr(self, inode, name, ctx):
        raise pyfuse3.FUSEError(errno.ENODATA)


def main() -> None:
    pyfuse3.init(BareFs(), sys.argv[1], {"fsname=barefs", "default_permissions"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


main()
