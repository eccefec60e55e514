"""A writable tree over any read-only one.

This library knows nothing of disk images, FUSE or event loops and needs the standard library only. `overlay.vfs` has the
vocabulary; start there.
"""
