"""Boots a machine from disk images and looks whether it works: `prove.py [NAME...]`, all of BOOTS unless told. Used by
scripts/test-boot.

Every boot is a kernel of Debian's and an initial RAM disk made by initramfs-tools, in QEMU, with the image on a disk of its
own that is read-only for the machine. In the booted system a service proves that it works and powers off (see
root/boot-proof).
What the console said is kept in evidence/boot/NAME.log. A boot that says too little, says FAILED, does not power off or
changes its image's disk ends the run with exit 1. One boot must fail: in one line, without waiting for a person.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
EVIDENCE = REPOSITORY / "evidence/boot"
SECONDS = 1800
"""For one boot, on a machine that is busy with other things. Alone it takes about 100."""

MASKED = ("e2scrub_reap.service", "apt-daily.timer", "apt-daily-upgrade.timer")
TOOLS = {"initramfs-tools": ("boot=dmgfs",), "dracut": ()}
"""What makes the initial RAM disk, and what it wants to be told to boot from an image."""

EXPECTED = {
    "multi-user": "active",
    "failed units": "",
    "pid 1": "/usr/lib/systemd/systemd",
    "dpkg -i": "ok: ",
    "files": "ok: ",
    "setuid": "ok: ",
    "device": "ok: ",
}
"""What every boot must say, or begin with."""


class Boot(NamedTuple):
    """One machine. image: which of the two. append: for the kernel. shadow: it has the second disk. again: what the boot
    before it on that disk left must be there. expected: what it says besides. tool: what makes the initial RAM disk.
    refused: it must not boot, say this and restart."""

    name: str
    image: str
    append: str
    shadow: bool = False
    again: bool = False
    expected: tuple[tuple[str, str], ...] = ()
    tool: str = "initramfs-tools"
    refused: str = ""


BOOTS = (
    Boot("udzo-ram", "udzo", "root=LABEL=LIVE dmgfs.image=/live/root.dmg dmgfs.shadow=ram:256M"),
    Boot("ulfo-darwin", "ulfo", "root=/dev/vda rp=file:///live/root.dmg -rootdmg-ramdisk"),
    Boot(
        "udzo-file",
        "udzo",
        "dmgfs.image=LABEL=LIVE:/live/root.dmg dmgfs.shadow=LABEL=CHANGES:/dmgfs/shadow dmgfs.verify=full "
        "dmgfs.playlist=record=/run/dmgfs/shadow/root.playlist",
        shadow=True,
        expected=(("boot number", "1"),),
    ),
    Boot(
        "udzo-file-again",
        "udzo",
        "dmgfs.image=LABEL=LIVE:/live/root.dmg dmgfs.shadow=LABEL=CHANGES:/dmgfs/shadow dmgfs.on-error=fail "
        "dmgfs.playlist=use=/run/dmgfs/shadow/root.playlist",
        shadow=True,
        again=True,
        expected=(("boot number", "2"), ("kept from the boot before", "written in boot 1, ")),
    ),
    Boot(
        "udzo-dracut", "udzo", "dmgfs.image=LABEL=LIVE:/live/root.dmg rd.shell=0 rd.emergency=poweroff", tool="dracut"
    ),
    Boot(
        "misspelt",
        "udzo",
        "dmgfs.image=LABEL=LIVE:/live/root.dmg dmgfs.shadwo=ram",
        refused="dmgfs: dmgfs.shadwo: there is no such word; is dmgfs.shadow meant?",
    ),
)


class Failed(Exception):
    """A boot did not do what it had to."""


def disk(out: Path, label: str, size: int, content: Path | None) -> Path:
    """An ext4 disk with what is in the folder `content`."""
    with out.open("wb") as file:
        file.truncate(size)
    words = ["mkfs.ext4", "-q", "-L", label, *(["-d", content] if content else []), out]
    subprocess.run(words, check=True)
    return out


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def said(log: Path) -> dict[str, str]:
    """The PROOF lines of a console, by what they are about."""
    found = {}
    for line in log.read_text(errors="replace").splitlines():
        match = re.search(r"PROOF (up|done) (after [\d.]+ s)|PROOF ([^:]+): ?(.*)", line.rstrip("\r"))
        if match:
            found[match[1] or match[3]] = match[2] or match[4]
    return found


class Machine:
    """The kernel, the initial RAM disk and the disks, in a folder for the time of the run."""

    def __init__(self, fixtures: Path, images: dict[str, Path], work: Path) -> None:
        self.kernel = fixtures / "vmlinux"
        self._fixtures = fixtures
        self._work = work
        self.disks = {}
        for name, image in images.items():
            content = work / name
            (content / "live").mkdir(parents=True)
            shutil.copy(image, content / "live/root.dmg")
            size = (image.stat().st_size * 5 // 4 + (16 << 20)) >> 20 << 20
            self.disks[name] = disk(work / f"{name}.disk", "LIVE", size, content)
        self.changes = disk(work / "changes.disk", "CHANGES", 256 << 20, None)

    def initrd(self, tool: str) -> Path:
        """Made by that tool, once."""
        out = self._work / f"initrd.{tool}"
        if not out.exists():
            subprocess.run([HERE / "initramfs", self._fixtures / "kernel", out, tool], check=True)
            print(f"initial RAM disk by {tool}: {out.stat().st_size / (1 << 20):.1f} MiB", flush=True)
        return out

    def boot(self, boot: Boot, before: dict[str, str]) -> dict[str, str]:
        """What it said. before: what the last boot said. Raises Failed."""
        image = self.disks[boot.image]
        sum_before = digest(image)
        log = EVIDENCE / f"{boot.name}.log"
        words = [*TOOLS[boot.tool], boot.append, *(f"systemd.mask={unit}" for unit in MASKED)]
        append = " ".join(words)
        disks = [f"{image}:ro", *([str(self.changes)] if boot.shadow else [])]
        initrd = self.initrd(boot.tool)
        started = time.monotonic()
        usage = os.times()
        with log.open("wb") as file:
            file.write(f"kernel command line: {append}\n".encode())
            file.flush()
            command = [HERE / "vm", self.kernel, initrd, str(SECONDS), append, *disks]
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        seconds = time.monotonic() - started
        cpu = os.times().children_user - usage.children_user
        if boot.refused:
            console = log.read_text(errors="replace")
            if boot.refused not in console or "exit code 64" not in console or "Restarting system" not in console:
                raise Failed("it was not refused, or not in the right words")
            print(f"{boot.name}: refused and restarted after {seconds:.0f} s", flush=True)
            return before
        proof = said(log)
        wrong = [f"{key}: {proof.get(key)!r}" for key, value in (*EXPECTED.items(), *boot.expected)
                 if not proof.get(key, "absent").startswith(value) or (not value and proof.get(key))]  # fmt: skip
        wrong += [f"{key}: {value}" for key, value in proof.items() if value.startswith("FAILED")]
        if "fuse.dmgfs rw" not in proof.get("root", ""):
            wrong.append(f"root: {proof.get('root')}")
        if boot.again and before.get("sum", "no sum") not in proof.get("kept from the boot before", ""):
            wrong.append(f"the bytes of the boot before: {before.get('sum')} expected")
        if code != 0 or "reboot: Power down" not in log.read_text(errors="replace"):
            wrong.append(f"it did not power off (exit {code})")
        if digest(image) != sum_before:
            wrong.append("the disk with the image has changed")
        if wrong:
            raise Failed("; ".join(wrong))
        print(
            f"{boot.name}: powered off after {seconds:.0f} s ({cpu:.0f} s of CPU); image disk {sum_before} before and after"
        )
        for key, value in proof.items():
            print(f"    {key}: {value}", flush=True)
        return proof


def main() -> int:
    chosen = [boot for boot in BOOTS if boot.name in sys.argv[1:] or not sys.argv[1:]]
    fixtures = Path(subprocess.check_output([HERE.parent / "fixtures/setup"], text=True).strip().splitlines()[-1])
    build = [sys.executable, HERE.parent / "live-root/build", "boot"]
    built = [Path(line.split()[0]) for line in subprocess.check_output(build, text=True).splitlines()]
    images = {path.name.split(".")[1]: path for path in built}
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="dmgfs-boot-") as work:
        machine = Machine(fixtures, images, Path(work))
        proof: dict[str, str] = {}
        for boot in chosen:
            try:
                proof = machine.boot(boot, proof)
            except Failed as failure:
                failures += 1
                print(f"{boot.name}: FAILED: {failure}; see {EVIDENCE / boot.name}.log", file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
