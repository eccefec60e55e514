#!/usr/bin/env python3
"""A Debian system boots from a compressed image over NBD, twice; run by `scripts/test-nbd debian`.

    the system of scripts/test-boot on ext4, packed as ULFO → `dmgfs serve`, a shadow file for each client → QEMU, the disk
    nbd://…/alpha, an initial RAM disk by initramfs-tools: systemd to multi-user, a package built and installed, files
    written and compared, power-off → the server is stopped and started → the same again, which must find what the first
    boot left → e2fsck of what alpha has → the image is what it was

dmgfs is on the server only. What must be said is that of `prove`. The consoles are kept in evidence/boot.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from exercise.mounted import DMGFS  # noqa: E402
from exercise.nbd import Server, serving  # noqa: E402
from prove import EVIDENCE, EXPECTED, MASKED, SECONDS, digest, disk, said  # noqa: E402

ROOM = 600 << 20
CONSOLE = "serial-getty@ttyS0.service"
"""Nobody logs in; without udev in that system it would be waited for."""


def boot(name: str, kernel: Path, initrd: Path, server: Server) -> dict[str, str]:
    """What it said. Ends the run where that is not what it must say."""
    log = EVIDENCE / f"{name}.log"
    append = " ".join(["root=/dev/vda rw", *(f"systemd.mask={unit}" for unit in (*MASKED, CONSOLE))])
    command = [HERE / "vm", kernel, initrd, str(SECONDS), append, f"nbd+unix:///alpha?socket={server.socket}"]
    started = time.monotonic()
    with log.open("wb") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    proof = said(log)
    wrong = [
        f"{key}: {proof.get(key)!r}"
        for key, value in EXPECTED.items()
        if not proof.get(key, "absent").startswith(value) or (not value and proof.get(key))
    ]
    wrong += [f"{key}: {value}" for key, value in proof.items() if value.startswith("FAILED")]
    console = log.read_text(errors="replace")
    if proof.get("root", "").split()[:2] != ["/dev/vda", "ext4"] or " rw," not in proof["root"]:
        wrong.append(f"root: {proof.get('root')}")
    if code or "reboot: Power down" not in console or "I/O error" in console:
        wrong.append(f"it did not power off as it should (exit {code})")
    if wrong:
        sys.exit(f"{name}: FAILED: {'; '.join(wrong)}; see {log}")
    print(f"{name}: powered off after {time.monotonic() - started:.0f} s", flush=True)
    for key, value in proof.items():
        print(f"    {key}: {value}", flush=True)
    return proof


def main() -> None:
    fixtures = Path(subprocess.check_output([HERE.parent / "fixtures/setup"], text=True).strip().splitlines()[-1])
    built = subprocess.check_output([sys.executable, HERE.parent / "live-root/build", "boot", "tree"], text=True)
    tree = Path(built.strip())
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dmgfs-served-") as temporary:
        work = Path(temporary)
        image, shadows, initrd = work / "root.dmg", work / "shadows", work / "initrd"
        shadows.mkdir()
        raw = disk(work / "raw", "ROOT", ROOM, tree)
        subprocess.run([DMGFS, "convert", raw, image, "--to", "ulfo"], check=True)
        raw.unlink()
        before = digest(image)
        subprocess.run([HERE / "initramfs", fixtures / "kernel", initrd], check=True)
        with serving(image, work, "--shadow", shadows) as server:
            first = boot("nbd-first", fixtures / "vmlinux", initrd, server)
            if server.stop() != 0:
                sys.exit("the server did not stop as it should")
        with serving(image, work, "--shadow", shadows) as server:
            second = boot("nbd-second", fixtures / "vmlinux", initrd, server)
            kept = second.get("kept from the boot before", "")
            if first["boot number"] != "1" or not kept.startswith("written in boot 1, ") or first["sum"] not in kept:
                sys.exit(f"the second boot found {kept!r}")
            subprocess.run(["nbdcopy", f"nbd+unix:///alpha?socket={server.socket}", work / "after"], check=True)
        subprocess.run(["e2fsck", "-fn", work / "after"], check=True, stdout=subprocess.DEVNULL)
        if digest(image) != before:
            sys.exit("the image was changed")
        print(f"e2fsck finds no fault; the image is what it was (sha256 {before})")


if __name__ == "__main__":
    main()
