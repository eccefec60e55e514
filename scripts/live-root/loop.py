#!/usr/bin/env python3
"""A Debian system goes round the loop: `dmgfs create` packs it (HFSX, ULFO, a journal), a machine (QEMU) boots from the
image with a shadow in a file, installs a package and powers off, `dmgfs commit` makes the next image of the first one and
the shadow, and a machine boots from that one and finds the package. The new image must be sound to fsck and `verify
--deep`; `dmgfs diff` must tell the package, and besides it nothing but what a boot of Debian changes, which is listed below
by name; a delta, applied by `dmgfs patch`, must give the new image byte for byte.

    loop.py             as above; a boot takes minutes where nothing emulates but this
    loop.py --chroot    the package is installed under chroot in a live mount, which is committed while it lives; the
                        new image must show what the mount shows

Prints a line for each step, with its processor time; exit 1 if anything is wrong. The consoles are kept in evidence/boot.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOOT = HERE.parent / "boot"
sys.path[:0] = [str(HERE.parent / "fixtures"), str(HERE.parents[1] / "tests"), str(BOOT)]

from exercise.mounted import Ended, dmgfs, mounted  # noqa: E402
from prove import EVIDENCE, MASKED, disk, said  # noqa: E402
from volumes import set_up  # noqa: E402

PACKAGE = "loop-greeting"
INSTALLED = "install ok installed"
OF_THE_PACKAGE = (
    f"usr/share/{PACKAGE}",
    f"usr/bin/{PACKAGE}",
    f"var/lib/{PACKAGE}",
    "var/lib/dpkg/",
    "var/log/dpkg.log",
    "var/cache/debconf/",
)
"""Where installing it may leave traces: its own files, what its script writes, dpkg's books."""

OF_THE_BOOT = {
    "tmp/.": "folders for sockets, made by systemd-tmpfiles",
    "var/lib/systemd/": "the random seed, stamps of timers, who may linger",
    "var/log/journal/": "the journal of this boot",
    "var/log/wtmp": "a record for every start and stop",
}
"""What the first boot of a Debian changes by itself, and why."""

WAITS = ("serial-getty@ttyS0.service",)
"""Units that would wait for a device, as the system has no udev."""

SHADOW = "dmgfs.shadow=LABEL=CHANGES:/dmgfs/shadow"
CREATE = ("--fs", "hfsx", "--format", "ulfo", "--journal", "--volname", "Debian")
OPTIONS = ("-o", "allow_other,dev,suid")
SECONDS = 1800


def step(what: str, ended: Ended, code: int = 0) -> Ended:
    if ended.code != code:
        sys.exit(f"{what} FAILED ({ended.code}): {ended.out}{ended.err}")
    last = ended.out.strip().splitlines()[-1] if code == 0 and ended.out.strip() else ""
    print(f"{what:10}{ended.cpu:6.1f} s of processor  {last}", flush=True)
    return ended


def note(text: str) -> None:
    print(f"{'':10}{text}", flush=True)


# -- a machine ---------------------------------------------------------------------------------------------------------


def prepare(tree: Path) -> None:
    """What makes a plain Debian system fit for this: its service, and nothing that waits for a network."""
    units = tree / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    for path in (*wanted.glob("boot-proof.service"), *units.glob("boot-proof.service")):
        path.unlink()  # of scripts/test-boot, which shares the tree
    shutil.copy(BOOT / "loop/loop-proof", tree / "usr/local/sbin")
    shutil.copy(BOOT / "loop/loop-proof.service", units)
    (wanted / "loop-proof.service").symlink_to("/etc/systemd/system/loop-proof.service")
    slow = units / "systemd-journal-flush.service.d/slow.conf"
    slow.parent.mkdir(exist_ok=True)
    slow.write_text("[Service]\nTimeoutSec=15min\n")
    (tree / "etc/hostname").write_text("dmgfs-loop\n")
    (tree / "etc/fstab").write_text("# the root file system is mounted by the initial RAM disk\n")


def boot(name: str, fixtures: Path, initrd: Path, image: Path, work: Path, words: str, *more: Path) -> dict[str, str]:
    """Boots from the image, which is on a read-only disk, until the machine powers off. words: for the kernel's command
    line. more: disks. Returns what it said."""
    content = work / name
    (content / "live").mkdir(parents=True)
    shutil.copy(image, content / "live/root.dmg")
    size = (image.stat().st_size * 5 // 4 + (16 << 20)) >> 20 << 20
    live = disk(work / f"{name}.disk", "LIVE", size, content)
    shutil.rmtree(content)
    masked = " ".join(f"systemd.mask={unit}" for unit in (*MASKED, *WAITS))
    append = f"boot=dmgfs dmgfs.image=LABEL=LIVE:/live/root.dmg {words} {masked}"
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    log = EVIDENCE / f"{name}.log"
    with log.open("wb") as file:
        command = [BOOT / "vm", fixtures / "vmlinux", initrd, str(SECONDS), append, f"{live}:ro", *map(str, more)]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    proof = said(log)
    wrong = [f"{key}: {value}" for key, value in proof.items() if value.startswith("FAILED")]
    wanted = {"multi-user": "active", "failed units": "", "package now": INSTALLED, "its files": ""}
    wrong += [f"{key}: {proof.get(key)!r}" for key, value in wanted.items() if proof.get(key) != value]
    if "fuse.dmgfs rw" not in proof.get("root", ""):
        wrong.append(f"root: {proof.get('root')}")
    if code or "reboot: Power down" not in log.read_text(errors="replace"):
        wrong.append(f"it did not power off (exit {code})")
    if wrong:
        sys.exit(f"the boot {name} FAILED: {'; '.join(wrong)}; see {log}")
    note(
        f"{name}: up {proof['up']}, done {proof['done']}; package before: {proof['package before']}; {proof['it says']}"
    )
    return proof


def by_boots(tree: Path, fixtures: Path, work: Path, first: Path, second: Path) -> None:
    system = work / "tree"
    subprocess.run(["cp", "-a", "--reflink=auto", tree, system], check=True)
    prepare(system)
    step("create", dmgfs("create", system, first, *CREATE, timeout=SECONDS))
    initrd = work / "initrd"
    subprocess.run([BOOT / "initramfs", fixtures / "kernel", initrd], check=True)
    changes = disk(work / "changes.disk", "CHANGES", 256 << 20, None)
    proof = boot("loop-first", fixtures, initrd, first, work, SHADOW, changes)
    if proof["package before"] != "absent":
        sys.exit("the first image FAILED to be without the package")
    shadow = work / "shadow"
    subprocess.run(["debugfs", "-R", f"dump /dmgfs/shadow {shadow}", changes], check=True, capture_output=True)
    step("commit", dmgfs("commit", shadow, second, "--image", first, timeout=SECONDS))
    proof = boot("loop-second", fixtures, initrd, second, work, "dmgfs.shadow=ram:256M")
    if proof["package before"] != INSTALLED:
        sys.exit("the package FAILED to be in the new image")


# -- a chroot ----------------------------------------------------------------------------------------------------------


def chroot(place: Path, *command: str | Path) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["chroot", place, *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"in the system: {done.stdout}{done.stderr}")
    return done.stdout


def by_chroot(tree: Path, fixtures: Path, work: Path, first: Path, second: Path) -> None:
    step("create", dmgfs("create", tree, first, *CREATE, timeout=SECONDS))
    function = (BOOT / "loop/loop-proof").read_text().partition("make_and_install() {\n")[2].partition("\n}\n")[0]
    with mounted(first, work / "live", "--shadow", "ram:512M", *OPTIONS) as live:
        chroot(live, "/bin/sh", "-ec", function)
        chroot(live, "rm", "-r", f"/run/{PACKAGE}.deb", "/run/loop-package")
        step("commit", dmgfs("commit", live, second, timeout=SECONDS))
        with mounted(second, work / "next", *OPTIONS) as following:
            command = ["rsync", "-aHAXcn", "--delete", "--itemize-changes", f"{live}/", f"{following}/"]
            found = subprocess.run(command, capture_output=True, text=True)
            if found.returncode or found.stdout:
                sys.exit(f"the new image FAILED to show what the mount shows:\n{found.stdout[:2000]}{found.stderr}")
            note("the new image shows what the mount shows: rsync -aHAXc finds no difference")
            told = chroot(following, "/bin/sh", "-c", f"dpkg-query -W -f '${{Status}} ' {PACKAGE}; {PACKAGE}")
            if told != f"{INSTALLED} 100000\n":
                sys.exit(f"the package FAILED to be in the new image: {told}")
            note(f"the package is in it: {told.strip()}")


# -- what came of it ---------------------------------------------------------------------------------------------------


def explained(listed: str) -> None:
    """Every line is of the package, or of a boot and named."""
    lines = listed.splitlines()
    paths = [line.split(maxsplit=1)[1].split("  (")[0] for line in lines]
    of_the_package = [path for path in paths if path.startswith(OF_THE_PACKAGE)]
    reasons: dict[str, list[str]] = {}
    strange = []
    for line, path in zip(lines, paths, strict=True):
        reason = next((place for place in OF_THE_BOOT if path.startswith(place)), None)
        if path in of_the_package:
            continue
        if reason is None:
            strange.append(line)
        else:
            reasons.setdefault(reason, []).append(path)
    if strange or f"usr/bin/{PACKAGE}" not in paths:
        sys.exit("diff FAILED: more, or less, than the package and a boot differs:\n" + "\n".join(strange))
    note(f"{len(lines)} differences, {len(of_the_package)} of the package and of dpkg's own files:")
    for path in of_the_package:
        note(f"  {path}")
    for place, found in reasons.items():
        note(f"{len(found)} of the boot itself: {OF_THE_BOOT[place]}")
        for path in found:
            note(f"  {path}")


def main() -> int:
    live: Callable[..., None] = by_chroot if sys.argv[1:] == ["--chroot"] else by_boots
    fixtures = set_up()
    tree = fixtures / "boot/tree"
    subprocess.run([HERE / "tree", tree, "systemd-sysv,dbus"], check=True, stdout=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dmgfs-loop-", dir=fixtures) as temporary:
        work = Path(temporary)
        first, second, delta, again = (work / name for name in ("first.dmg", "second.dmg", "delta", "again.dmg"))
        live(tree, fixtures, work, first, second)
        step("verify", dmgfs("verify", "--deep", second, timeout=SECONDS))
        volume = work / "volume.img"
        step("convert", dmgfs("convert", second, volume, "--partition", "1", timeout=SECONDS))
        fsck = subprocess.run(
            [fixtures / "hfsprogs/sbin/fsck.hfsplus", "-fn", volume], capture_output=True, text=True
        )
        if fsck.returncode:
            sys.exit(f"fsck.hfsplus FAILED: {fsck.stdout}{fsck.stderr}")
        note("fsck.hfsplus finds no fault")
        explained(step("diff", dmgfs("diff", first, second, timeout=SECONDS), 1).out)
        step("delta", dmgfs("diff", first, second, "--delta", delta, timeout=SECONDS))
        note(f"the delta has {delta.stat().st_size:,} bytes, the image {second.stat().st_size:,}")
        step("patch", dmgfs("patch", first, delta, again, timeout=SECONDS))
        if again.read_bytes() != second.read_bytes():
            sys.exit("patch FAILED: another file")
        note("first image and delta give the new image byte for byte")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
