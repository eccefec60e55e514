"""Writing HFS+ and HFSX volumes whole: an inventory of what they are to hold (`inventory`), then the volume as a source of
bytes (`volume`), which `dmgfs.packing` makes a disk image of.

Rules that hold here:
- nothing is known of Linux: names are the volume's own (UTF-16, decomposed), dates Unix seconds, attributes Apple's;
- the same inventory and settings give the same bytes;
- memory does not depend on the number of objects nor on the size of their contents: what is known of them is in a
  temporary database, the trees are in temporary files, contents are read when their place on the disk is read;
- no place is given twice, and every byte of the volume has exactly one owner: header, tree, fork or nobody.
"""
