#!/usr/bin/env python3
"""A Debian system goes round the loop: `dmgfs create` packs it (HFSX, ULFO, a journal), it is mounted with a shadow in
memory, a package is built and installed in it under chroot, `dmgfs commit` makes the next image of the live mount. That one
must show what the mount shows, hold the package, be sound to fsck, and differ from the first by the package alone, which
`dmgfs diff` tells; its delta, applied by `dmgfs patch`, must give it byte for byte. Prints a line for each step, with its
processor time; exit 1 if anything is wrong.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "fixtures"), str(HERE.parents[1] / "tests")]

from exercise.mounted import Ended, dmgfs, mounted  # noqa: E402
from volumes import set_up  # noqa: E402

PACKAGE = "loop-proof"
CONTROL = f"""Package: {PACKAGE}
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: goes round the loop
"""
INSTALL = f"""set -e
mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/{PACKAGE}
cat > /tmp/p/DEBIAN/control
seq 100000 > /tmp/p/usr/share/{PACKAGE}/numbers
ln -s numbers /tmp/p/usr/share/{PACKAGE}/link
dpkg-deb -b /tmp/p /tmp/p.deb > /dev/null
dpkg -i /tmp/p.deb > /dev/null
rm -r /tmp/p /tmp/p.deb
"""
ALLOWED = (f"usr/share/{PACKAGE}", "var/lib/dpkg/", "var/log/dpkg.log", "var/cache/debconf/")
"""Where installing a package may leave traces."""

OPTIONS = ("-o", "allow_other,dev,suid")
SECONDS = 1800


def step(what: str, ended: Ended, code: int = 0) -> Ended:
    if ended.code != code:
        sys.exit(f"{what} FAILED ({ended.code}): {ended.out}{ended.err}")
    last = ended.out.strip().splitlines()[-1] if code == 0 and ended.out.strip() else ""
    print(f"{what:10}{ended.cpu:6.1f} s of processor  {last}", flush=True)
    return ended


def chroot(place: Path, script: str, feed: str = "") -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["chroot", place, "/bin/sh", "-c", script], input=feed, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"in the system: {done.stdout}{done.stderr}")
    return done.stdout


def only_the_package(listed: str) -> None:
    lines = listed.splitlines()
    paths = [line.split(maxsplit=1)[1].split("  (")[0] for line in lines]
    strange = [line for line, path in zip(lines, paths, strict=True) if not path.startswith(ALLOWED)]
    if strange or not any(path.startswith(ALLOWED[0]) for path in paths):
        sys.exit("diff FAILED: more, or less, than the package differs:\n" + "\n".join(strange))
    print(f"{'':10}{len(lines)} differences, all of the package and of dpkg's own files")


def main() -> int:
    fixtures = set_up()
    tree = fixtures / "boot/tree"
    subprocess.run([HERE / "tree", tree, "systemd-sysv,dbus"], check=True, stdout=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dmgfs-loop-", dir=fixtures) as temporary:
        work = Path(temporary)
        first, second, delta, again = (work / name for name in ("first.dmg", "second.dmg", "delta", "again.dmg"))
        more = ("--fs", "hfsx", "--format", "ulfo", "--journal", "--volname", "Debian")
        step("create", dmgfs("create", tree, first, *more, timeout=SECONDS))
        with mounted(first, work / "live", "--shadow", "ram:512M", *OPTIONS) as live:
            chroot(live, INSTALL, CONTROL)
            step("commit", dmgfs("commit", live, second, timeout=SECONDS))
            with mounted(second, work / "next", *OPTIONS) as following:
                command = ["rsync", "-aHAXcn", "--delete", "--itemize-changes", f"{live}/", f"{following}/"]
                found = subprocess.run(command, capture_output=True, text=True)
                if found.returncode or found.stdout:
                    sys.exit(
                        f"the new image FAILED to show what the mount shows:\n{found.stdout[:2000]}{found.stderr}"
                    )
                print(f"{'':10}the new image shows what the mount shows: rsync -aHAXc finds no difference")
                said = chroot(following, f"dpkg -s {PACKAGE} | grep Status; tail -n 1 /usr/share/{PACKAGE}/link")
                if said != "Status: install ok installed\n100000\n":
                    sys.exit(f"the package FAILED to be in the new image: {said}")
                print(f"{'':10}the package is in it: {said.splitlines()[0]}")
        step("verify", dmgfs("verify", "--deep", second, timeout=SECONDS))
        volume = work / "volume.img"
        step("convert", dmgfs("convert", second, volume, "--partition", "1", timeout=SECONDS))
        fsck = subprocess.run(
            [fixtures / "hfsprogs/sbin/fsck.hfsplus", "-fn", volume], capture_output=True, text=True
        )
        if fsck.returncode:
            sys.exit(f"fsck.hfsplus FAILED: {fsck.stdout}{fsck.stderr}")
        print(f"{'':10}fsck.hfsplus finds no fault")
        only_the_package(step("diff", dmgfs("diff", first, second, timeout=SECONDS), 1).out)
        step("delta", dmgfs("diff", first, second, "--delta", delta, timeout=SECONDS))
        step("patch", dmgfs("patch", first, delta, again, timeout=SECONDS))
        if again.read_bytes() != second.read_bytes():
            sys.exit("patch FAILED: another file")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
