#!/bin/sh
# dracut, cmdline hook: does the kernel's command line name an image? Then there is a root, and no block device to wait for.
# A misspelt word is said here, and the boot ends at the mount.
if dmgfs imageboot --show > /run/dmgfs-plan 2> /run/dmgfs-refusal; then
    # shellcheck disable=SC2034  # dracut reads both
    root=dmgfs
    # shellcheck disable=SC2034
    rootok=1
    [ -e /dev/root ] || ln -s null /dev/root
elif ! grep -q 'names no image' /run/dmgfs-refusal; then
    cat /run/dmgfs-refusal >&2
fi
