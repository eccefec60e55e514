"""HFS standard, the file system of classic Mac OS and of old CDs (Inside Macintosh: Files, chapter 2). Read-only.

Rules that hold in this package:
- the same promises as HFS+ (`dmgfs.volume.Volume`), from the same kind of trees, in nodes of 512 bytes;
- names are Mac OS Roman, one byte a character; there are no permissions, links or attributes;
- dates are the wall clock of the Mac that wrote them. They are shown as that wall clock here (the zone of this process),
  as Apple's own systems did.
"""
