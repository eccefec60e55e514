#!/bin/sh
# dracut, mount hook: the image becomes the root. Nothing here waits for a person: without a root, dracut's own policy counts
# (rd.shell=0, rd.emergency=reboot).
if [ "${root:-}" = dmgfs ] && ! ismounted "$NEWROOT"; then
    modprobe fuse 2> /dev/null || true
    DMGFS_INITRD=1 dmgfs imageboot "$NEWROOT" || die "dmgfs: no root file system: exit code $? (the line above says why)"
fi
