"""Gathering what a new volume is to hold from where it is now: a folder (`folder`), a tar stream (`tar`). Each fills an
inventory and is the origin of the contents.

Rules that hold here:
- what dmgfs mounts show is taken back to where it came from: names are decomposed and ':' becomes '/', `user.com.apple.…`
  loses its `user.`, Finder information and resource forks go to their own places (`translation`);
- what HFS+ cannot hold is collected as a problem (nothing is written then); what has no place there and is no loss to the
  tree is counted as a warning;
- the same tree gives the same volume: dates of access and of change are not taken over, only that of modification.
"""
