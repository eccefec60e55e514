#!/usr/bin/env python3
"""Puts dmgfs and what it runs on into the tree of an initial RAM disk: `collect.py TREE`. Run it with the Python that dmgfs
is installed for. Prints what it put there and how large it is.

What is needed is found by doing it: the sample image is mounted as a live root, and what that process has imported and
mapped is copied, nothing else (without /dev/fuse: what it imports before mounting). Modules are byte-compiled; the result
needs no Python on the machine that boots.

    TREE/usr/sbin/dmgfs                the command
    TREE/usr/lib/dmgfs/                Python, its modules, shared libraries of its own
    TREE/usr/lib/…                     shared libraries of the system, where they are here
"""

import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dmgfs.codecs import liblzfse

HOME = Path("usr/lib/dmgfs")
SAMPLE = Path(__file__).resolve().parents[2] / "tests/data/sample.dmg"
SYSTEM = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
DLOPENED = ("libgcc_s.so.1",)
"""What the C library loads by itself only when a thread ends."""

COMMAND = f"""\
#!/bin/sh
# Python in a place of its own, found by no other.
export PYTHONHOME=/{HOME} PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
export LD_LIBRARY_PATH=/{HOME}/lib
exec /{HOME}/bin/python3 -s -S /{HOME}/run.py "$@"
"""

PROGRAM = """\
import sys
from dmgfs.cli import main
sys.exit(main())
"""

PROBE = """\
import contextlib, io, json, os, sys
report, sample, place = sys.argv[1:]
from dmgfs.cli import main
from dmgfs.fuse.liveroot import LiveRoot
from dmgfs.fuse.preload import preload

def write():
    found = {}
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name != "__main__":
            found[spec.name] = [spec.origin or "", spec.submodule_search_locations is not None]
    with open("/proc/self/maps") as maps:
        mapped = sorted({line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line and line.count("/") > 1})
    with open(report + ".new", "w") as file:
        json.dump({"modules": found, "mapped": mapped}, file)
    os.rename(report + ".new", report)

for verb in ("mount", "imageboot", "unmount"):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([verb, "--help"])
harden = LiveRoot.harden
def hardened(self):
    harden(self)
    write()
LiveRoot.harden = hardened
if os.access("/dev/fuse", os.R_OK | os.W_OK) and os.geteuid() == 0:
    sys.exit(main(["imageboot", place, "--cmdline", f"dmgfs.image={sample} dmgfs.shadow={place}.shadow dmgfs.toram"]))
preload()
write()
"""


PROOF = """\
import importlib, sys
from dmgfs.codecs import inflate, liblzfse
from dmgfs.fuse.preload import preload
assert liblzfse.AVAILABLE == (sys.argv.pop(1) == "True"), "liblzfse is missing"
before = set(sys.modules)
preload()
for name in sys.argv[1:]:
    importlib.import_module(name)
for module in sys.modules.values():
    if getattr(module, "__file__", None):
        print(module.__file__)
with open("/proc/self/maps") as maps:
    for path in sorted({line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line and line.count("/") > 1}):
        print(path)
"""


def probe() -> dict[str, dict[str, list[str | bool]]]:
    """modules: name → (file, is a package). mapped: shared libraries in use."""
    with tempfile.TemporaryDirectory(prefix="dmgfs-collect-") as work:
        place = Path(work) / "place"
        place.mkdir()
        report = Path(work) / "report"
        command = [sys.executable, "-c", PROBE, report, SAMPLE, place]
        try:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120)
        finally:
            if os.path.ismount(place):
                subprocess.run(["umount", place], check=True)
        return json.loads(report.read_text())


class Collection:
    """What goes into the tree."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.home = tree / HOME
        self.library = self.home / f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
        self.libraries: set[str] = set()
        self.modules = 0
        self.size = 0

    def module(self, name: str, origin: str, package: bool) -> None:
        """One imported module."""
        place = self.library.joinpath(*name.split("."))
        if origin in ("built-in", "frozen") or name.startswith("_editable_"):
            return
        self.modules += 1
        if not origin:
            place.mkdir(parents=True, exist_ok=True)  # a namespace
            return
        if origin.endswith(".py"):
            place = place / "__init__.pyc" if package else place.with_name(place.name + ".pyc")
            place.parent.mkdir(parents=True, exist_ok=True)
            shown = "/".join(name.split(".")) + ".py"
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(origin, str(place), dfile=shown, doraise=True, invalidation_mode=mode)
            self.size += place.stat().st_size
            return
        target = place / Path(origin).name if package else place.with_name(Path(origin).name)
        self.copy(Path(origin), target)
        self.libraries.update(linked(origin))

    def frozen(self) -> None:
        """Modules inside of the interpreter are looked for in files as well by some."""
        for name in ("os", "site", "codecs", "io", "abc", "stat", "posixpath", "genericpath"):
            origin = Path(os.__file__).with_name(f"{name}.py")
            py_compile.compile(str(origin), str(self.library / f"{name}.pyc"), dfile=f"{name}.py", doraise=True)

    def shared(self) -> None:
        """The libraries, those of the system where they are, others beside Python."""
        for library in self.libraries:
            if library.startswith(SYSTEM):
                self.system_library(library)
            else:
                self.copy(Path(library), self.home / "lib" / Path(library).name)

    def system_library(self, library: str) -> None:
        """Under its own name, and the one that programs ask for as a link to it."""
        place = self.tree / merged(library)
        own = self.tree / merged(os.path.realpath(library))
        self.copy(Path(library), own)
        if own != place and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(own, place.parent))

    def prove(self, modules: Iterable[str]) -> None:
        """Imports all of it from the tree alone. Raises SystemExit with what is missing."""
        environment = {"PYTHONHOME": str(self.home), "LD_LIBRARY_PATH": str(self.home / "lib"), "LC_ALL": "C.UTF-8"}
        names = [name for name in modules if not name.startswith(("_editable_", "_virtualenv"))]
        program = [self.home / "bin/python3", "-P", "-s", "-S", "-B", "-c", PROOF, str(liblzfse.AVAILABLE), *names]
        done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"collect: what was collected does not work:\n{done.stderr}")
        here = str(self.tree.resolve())
        strangers = [path for path in done.stdout.splitlines() if not path.startswith((here, *SYSTEM))]
        if strangers:
            raise SystemExit(f"collect: taken from outside of the tree: {', '.join(strangers)}")

    def copy(self, source: Path, target: Path) -> None:
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.resolve(), target)
        target.chmod(0o755)
        if shutil.which("strip"):
            subprocess.run(["strip", "--strip-unneeded", target], check=False, capture_output=True)
        self.size += target.stat().st_size


def merged(path: str) -> str:
    """/lib/x as usr/lib/x: that is where /lib leads."""
    return path.lstrip("/") if path.startswith("/usr/") else f"usr{path}"


def linked(file: str | Path) -> Iterator[str]:
    """The shared libraries that the loader finds for a program or library."""
    done = subprocess.run(["ldd", file], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        match = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if match:
            yield match[1]
        elif "not found" in line:
            raise SystemExit(f"collect: {file}: {line.strip()}")


def of_extension(path: str) -> tuple[str, str, bool]:
    """The arguments of `module` for a shared object in a folder of packages."""
    folder, _, name = path.rpartition("/site-packages/")[2].rpartition("/")
    return ".".join([*folder.split("/"), name.partition(".")[0]] if folder else [name.partition(".")[0]]), path, False


def dlopened(names: Iterable[str]) -> Iterator[str]:
    listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    for name in names:
        match = re.search(rf"^\s*{re.escape(name)} \([^)]*x86-64[^)]*\) => (\S+)", listing, re.MULTILINE)
        if match is None:
            match = re.search(rf"^\s*{re.escape(name)} .* => (\S+)", listing, re.MULTILINE)
        if match is not None:
            yield match[1]


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: collect.py TREE", file=sys.stderr)
        return 64
    collection = Collection(Path(sys.argv[1]).resolve())
    for folder in ("bin", "sbin", "lib", "lib64"):
        (collection.tree / "usr" / folder).mkdir(parents=True, exist_ok=True)
        link = collection.tree / folder
        if not link.is_symlink() and not link.exists():
            link.symlink_to(f"usr/{folder}")
    found = probe()
    for name, (origin, package) in found["modules"].items():
        collection.module(name, str(origin), bool(package))
    collection.frozen()
    python = Path(sys.executable).resolve()
    collection.copy(python, collection.home / "bin/python3")
    collection.libraries.update((*linked(python), *dlopened(DLOPENED)))
    known = {os.path.realpath(path) for path in collection.libraries}
    known |= {os.path.realpath(str(origin)) for origin, _ in found["modules"].values()}
    mapped = [str(path) for path in found["mapped"] if os.path.realpath(str(path)) not in known]
    for extension in [path for path in mapped if "/site-packages/" in path]:  # called through ctypes, never imported
        collection.module(*of_extension(extension))
        mapped.remove(extension)
    collection.libraries.update(mapped)
    collection.shared()
    (collection.home / "run.py").write_text(PROGRAM)
    command = collection.tree / "usr/sbin/dmgfs"
    command.write_text(COMMAND)
    command.chmod(0o755)
    collection.prove(found["modules"])
    print(
        f"dmgfs for the initial RAM disk: {collection.modules} modules, {len(collection.libraries)} shared libraries, "
        f"{collection.size / (1 << 20):.1f} MiB in {collection.tree}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
