#!/bin/bash
# dracut module: the root file system may be a disk image. Only on request (dracut --add dmgfs). Installed by
# scripts/initramfs/install, which also writes dmgfs.conf beside it (PYTHON, COLLECT).

check() {
    return 255
}

depends() {
    echo base udev-rules
}

installkernel() {
    hostonly='' instmods fuse loop overlay
}

# shellcheck disable=SC2154  # moddir and initdir are dracut's
install() {
    local PYTHON='' COLLECT=''
    # shellcheck source=/dev/null
    . "$moddir/dmgfs.conf"
    inst_multiple sh modprobe
    "${PYTHON:?dmgfs.conf does not say which Python}" "${COLLECT:?dmgfs.conf does not say where collect.py is}" "$initdir"
    inst_hook cmdline 30 "$moddir/parse-dmgfs.sh"
    inst_hook mount 01 "$moddir/mount-dmgfs.sh"
}
