#!/usr/bin/env python3
"""Lives in a mounted Debian system for a while: `exercise.py IMAGE SOURCE_TREE`. The image is mounted with a shadow in RAM;
the tree is compared with the one it was made of, programs run in it under chroot (dpkg, perl, python3, gcc), /usr is copied
and the copy removed, and at the end the image must have the same sha256 as before. Every step says what it found; the
first that fails ends the run with exit 1.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

from exercise.mounted import mounted  # noqa: E402
from exercise.trees import differences, digest, paths  # noqa: E402

END_OF_TIME = 2.0**40
WRITTEN_BY_LINUX = ("user.com.apple.FinderInfo",)
"""The Linux driver gives every file that it creates the type and creator "????"."""

PROGRAM = """\
#include <dlfcn.h>
#include <stdio.h>
int main(void)
{
    void *library = dlopen("libm.so.6", RTLD_NOW);
    double (*root)(double) = (double (*)(double)) dlsym(library, "sqrt");
    printf("compiled and linked on the live root: %.3f\\n", root(2));
    return 0;
}
"""

CONTROL = """\
Package: dmgfs-greeting
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@localhost>
Description: a package built and installed on the live root
"""

POSTINST = """\
#!/bin/sh
echo configured > /var/lib/dmgfs-greeting
"""


class Failed(Exception):
    """A step did not do what it had to."""


class LiveRoot:
    """A chroot at `root`, made of `source`."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root = root
        self.source = source

    def run(self, command: str) -> str:
        """Standard output of a shell command in the chroot. Raises Failed."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        done = subprocess.run(
            ["chroot", self.root, "/bin/sh", "-ec", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise Failed(f"exit {done.returncode} of: {command}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout.strip()

    def expect(self, command: str, output: str) -> str:
        found = self.run(command)
        if found != output:
            raise Failed(f"{command}: printed {found!r}, must print {output!r}")
        return found

    def equal(self, one: Path, other: Path) -> str:
        found = list(differences(os.fsencode(one), os.fsencode(other), END_OF_TIME, WRITTEN_BY_LINUX))
        if found:
            raise Failed(f"{len(found)} differences between {one} and {other}:\n  " + "\n  ".join(found[:20]))
        return f"{sum(1 for _ in paths(os.fsencode(one)))} objects, no difference"

    # The steps, in order.

    def compare_with_source(self) -> str:
        return self.equal(self.source, self.root)

    def devices_and_setuid(self) -> str:
        self.expect("echo thrown away > /dev/null; head -c 4 /dev/zero | od -An -tx1 | tr -d ' '", "00000000")
        return self.run("ls -l /dev/null /bin/su")

    def install_package(self) -> str:
        folder = self.root / "tmp/greeting"
        (folder / "DEBIAN").mkdir(parents=True)
        (folder / "usr/bin").mkdir(parents=True)
        (folder / "DEBIAN/control").write_text(CONTROL)
        (folder / "DEBIAN/postinst").write_text(POSTINST)
        (folder / "DEBIAN/postinst").chmod(0o755)
        (folder / "usr/bin/greeting").write_text("#!/bin/sh\necho greetings\n")
        (folder / "usr/bin/greeting").chmod(0o755)
        self.run("dpkg-deb --root-owner-group -b /tmp/greeting /tmp/greeting.deb && dpkg -i /tmp/greeting.deb")
        self.expect("greeting; cat /var/lib/dmgfs-greeting", "greetings\nconfigured")
        self.expect("dpkg -V dmgfs-greeting; dpkg-query -W -f '${Status}' dmgfs-greeting", "install ok installed")
        self.run("dpkg -r dmgfs-greeting && test ! -e /usr/bin/greeting && dpkg --audit")
        return "built, installed, configured, run, verified, removed"

    def perl(self) -> str:
        return self.expect('perl -MPOSIX -e \'print floor(7.5), " ", scalar(@INC) > 0 ? "ok" : "no"\'', "7 ok")

    def python(self) -> str:
        return self.expect("python3 -c 'import hashlib, struct; print(struct.calcsize(\"<IHB\"))'", "7")

    def compile(self) -> str:
        (self.root / "tmp/live.c").write_text(PROGRAM)
        self.run("gcc -O1 -o /tmp/live /tmp/live.c -ldl")
        return self.expect("/tmp/live", "compiled and linked on the live root: 1.414")

    def copy_usr(self) -> str:
        started = time.monotonic()
        self.run("cp -a /usr /usr2")
        copying = time.monotonic() - started
        return f"copied in {copying:.1f} s; {self.equal(self.source / 'usr', self.root / 'usr2')}"

    def remove_copy(self) -> str:
        started = time.monotonic()
        self.run("rm -rf /usr2 && test ! -e /usr2")
        removing = time.monotonic() - started
        return f"removed in {removing:.1f} s; {self.equal(self.source / 'usr', self.root / 'usr')}"

    def space(self) -> str:
        return self.run("df -h /").splitlines()[-1]


STEPS = (
    ("the mounted tree equals the one it was made of", LiveRoot.compare_with_source),
    ("device nodes work, setuid bits are there", LiveRoot.devices_and_setuid),
    ("cp -a /usr /usr2", LiveRoot.copy_usr),
    ("rm -rf /usr2", LiveRoot.remove_copy),
    ("dpkg -i", LiveRoot.install_package),
    ("perl", LiveRoot.perl),
    ("python3", LiveRoot.python),
    ("gcc, then the result with dlopen", LiveRoot.compile),
    ("df /", LiveRoot.space),
)


@contextlib.contextmanager
def kernel_folders(root: Path) -> Iterator[None]:
    """/proc for the programs in the chroot."""
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", root / "proc"], check=True)


def live(image: Path, source: Path) -> None:
    before = digest(os.fsencode(image))
    with tempfile.TemporaryDirectory(prefix="dmgfs-live-") as place:
        options = ("--shadow", "ram", "-o", "allow_other,dev,suid")
        with mounted(image, Path(place) / "live", *options) as root:
            live_root = LiveRoot(root, source)
            for name, step in STEPS:
                started = time.monotonic()
                if step is LiveRoot.compare_with_source:
                    found = step(live_root)
                else:
                    with kernel_folders(root):
                        found = step(live_root)
                print(f"{image.name}: {name}: {found} ({time.monotonic() - started:.1f} s)", flush=True)
    after = digest(os.fsencode(image))
    if after != before:
        raise Failed(f"{image} has changed: sha256 {before} before, {after} after")
    print(f"{image.name}: sha256 before and after: {after}")


def main() -> int:
    try:
        live(Path(sys.argv[1]), Path(sys.argv[2]))
    except (Failed, AssertionError) as failure:
        print(f"{sys.argv[1]}: FAILED: {failure}", file=sys.stderr)
        return 1
    return 0


raise SystemExit(main())
