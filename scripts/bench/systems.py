"""Who is measured: dmgfs and the peers that are installed, each with the way to mount it and to find its daemons.

Rules that hold here:
- every system gets the same files; what cannot read a DMG gets a squashfs of them;
- a mount is fresh and the image is out of the page cache (`cold`), so nothing is known from before; where it is said,
  the image is in memory instead (`warm`), and before mounting itself is measured everything has been mounted once;
- daemons stay our children where they can, so their processor time and memory are theirs alone.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0
PARTITION = 64 * 512
"""Where the volume begins in the images of `image`."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
DMGFS = str(Path(sys.executable).with_name("dmgfs"))


class CannotMount(Exception):
    """The system is there but did not mount; the message says why."""


def cold(image: Path) -> None:
    """Drops the file from the page cache."""
    descriptor = os.open(image, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def warm(image: Path) -> None:
    """Brings the file into the page cache."""
    with image.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def peak_memory(pid: int) -> int:
    """Bytes: the most memory that a process ever had."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


class Mount:
    """A mounted system. `seconds`: until the mount answered. `upper`: where it stores changes, if it has such a place."""

    def __init__(self, path: Path, work: Path) -> None:
        self.path = path
        self.work = work
        self.upper: Path | None = None
        self.pids: list[int] = []
        self.seconds = 0.0
        self._undo: list[Callable[[], object]] = []

    def cpu(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    def memory(self) -> int:
        return sum(map(peak_memory, self.pids))

    def close(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    # -- for the systems ---------------------------------------------------------------------------------------------

    def folder(self, name: str) -> Path:
        path = self.work / name
        path.mkdir()
        self._undo.append(lambda: shutil.rmtree(path, ignore_errors=True))
        return path

    def run(self, *command: str | Path) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMount(f"{command[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")

    def kernel(self, kind: str, options: str, source: str | Path, path: Path) -> None:
        self.run("mount", "-t", kind, "-o", options, source, path)
        self._undo.append(lambda: _unmount(path))

    def daemon(self, command: Sequence[str | Path], path: Path) -> None:
        """Starts a daemon that stays in the foreground; returns when something is mounted on `path`."""
        before = os.stat(path).st_dev
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        limit = time.monotonic() + PATIENCE
        while os.stat(path).st_dev == before:
            if process.poll() is not None or time.monotonic() > limit:
                process.kill()
                raise CannotMount(f"{command[0]}: {process.communicate()[1].decode(errors='replace').strip()[-200:]}")
            time.sleep(0.001)
        self.pids.append(process.pid)
        self._undo.append(lambda: _end(process, path))

    def detached(self, command: Sequence[str | Path], path: Path) -> None:
        """Runs a command that mounts something on `path` and leaves a daemon behind."""
        before = os.stat(path).st_dev
        self.run(*command)
        limit = time.monotonic() + PATIENCE
        while os.stat(path).st_dev == before:
            if time.monotonic() > limit:
                raise CannotMount(f"{command[0]}: ended well and mounted nothing")
            time.sleep(0.001)
        pid = _process(command)
        self.pids.append(pid)
        self._undo.append(lambda: (_unmount(path), _await_end(pid)))


def _process(command: Sequence[str | Path]) -> int:
    """Who runs just that command."""
    words = b"".join(os.fsencode(word) + b"\0" for word in command)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes() == words:
                return int(entry.name)
        except OSError:
            pass  # it has ended
    raise CannotMount(f"{command[0]}: mounted, and its daemon is not found")


def _await_end(pid: int) -> None:
    limit = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < limit:
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes], path: Path) -> None:
    """Unmounts and waits for the daemon; one that does not end by itself is ended."""
    _unmount(path)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount(path: Path) -> None:
    for _ in range(50):
        if subprocess.run(["umount", path], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", path], check=False)


class System:
    """name: in the table. needs: programs. mount(m, images, name): mounts image `name` (tree, work …) on m.path."""

    def __init__(
        self, name: str, needs: Sequence[str], mount: Callable[[Mount, Path, str], None], *, root: bool = True
    ) -> None:
        self.name = name
        self._needs = needs
        self._mount = mount
        self._root = root

    def present(self) -> bool:
        return all(shutil.which(program) for program in self._needs) and (os.getuid() == 0 or not self._root)

    def open(self, images: Path, image: str, work: Path, prepare: Callable[[Path], None] = cold) -> Mount:
        """prepare: what is done with each image file before."""
        path = work / "mnt"
        path.mkdir(exist_ok=True)
        for file in images.glob(f"{image}.*"):
            if file.suffix in (".dmg", ".squashfs"):
                prepare(file)
        mount = Mount(path, work)
        start = time.perf_counter()
        try:
            self._mount(mount, images, image)
        except BaseException:
            mount.close()
            raise
        mount.seconds = mount.seconds or time.perf_counter() - start
        return mount


def dmgfs(*options: str, codec: str = "udzo") -> Callable[[Mount, Path, str], None]:
    def mount(m: Mount, images: Path, image: str) -> None:
        start = time.perf_counter()
        m.run(DMGFS, "mount", images / f"{image}.{codec}.dmg", m.path, *options)
        m.seconds = time.perf_counter() - start
        pid = int(os.getxattr(m.path, "user.dmgfs.pid"))
        m.pids.append(pid)
        m._undo.append(lambda: (_unmount(m.path), _await_end(pid)))

    return mount


def _squashfuse(m: Mount, images: Path, image: str) -> None:
    m.daemon(["squashfuse", "-f", images / f"{image}.squashfs", m.path], m.path)


def _kernel_squashfs(m: Mount, images: Path, image: str) -> None:
    m.kernel("squashfs", "loop,ro", images / f"{image}.squashfs", m.path)


def _modimount(m: Mount, images: Path, image: str) -> None:
    raw = m.folder("raw")
    m.detached(["modimount", images / f"{image}.udzo.dmg", raw], raw)
    m.detached(["fshfsmount", "-o", str(PARTITION), raw / "modi1", m.path], m.path)


def _darling(m: Mount, images: Path, image: str) -> None:
    m.daemon(["darling-dmg", "-f", images / f"{image}.udzo.dmg", m.path], m.path)


def _layers(m: Mount, images: Path, image: str) -> tuple[Path, Path, Path]:
    """A squashfs below, folders of a tmpfs above."""
    lower, memory = m.folder("lower"), m.folder("memory")
    m.kernel("squashfs", "loop,ro", images / f"{image}.squashfs", lower)
    m.kernel("tmpfs", "size=80%", "tmpfs", memory)
    (memory / "upper").mkdir()
    (memory / "work").mkdir()
    m.upper = memory / "upper"
    return lower, memory / "upper", memory / "work"


def _unionfs(m: Mount, images: Path, image: str) -> None:
    lower, upper, _ = _layers(m, images, image)
    m.daemon(["unionfs-fuse", "-f", "-o", "cow", f"{upper}=RW:{lower}=RO", m.path], m.path)


def _fuse_overlayfs(m: Mount, images: Path, image: str) -> None:
    lower, upper, work = _layers(m, images, image)
    m.daemon(["fuse-overlayfs", "-f", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", m.path], m.path)


def _overlayfs(m: Mount, images: Path, image: str) -> None:
    lower, upper, work = _layers(m, images, image)
    m.kernel("overlay", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", m.path)


def _bare(m: Mount, images: Path, image: str) -> None:
    m.daemon([sys.executable, HERE / "barefs.py", m.path], m.path)


READERS = (
    System("dmgfs", (DMGFS,), dmgfs()),
    System("squashfuse", ("squashfuse",), _squashfuse),
    System("kernel squashfs", ("mksquashfs",), _kernel_squashfs),
    System("modimount+fshfsmount", ("modimount", "fshfsmount"), _modimount),
    System("darling-dmg", ("darling-dmg",), _darling),
    System("bare pyfuse3", (), _bare),
)
WRITERS = (
    System("dmgfs", (DMGFS,), dmgfs("--shadow", "ram")),
    System("bare pyfuse3", (), _bare),
    System("unionfs-fuse", ("unionfs-fuse", "mksquashfs"), _unionfs),
    System("fuse-overlayfs", ("fuse-overlayfs", "mksquashfs"), _fuse_overlayfs),
    System("kernel overlayfs", ("mksquashfs",), _overlayfs),
)
EXTRACTORS = {"7z": {"walk": ("7z", "l"), "read": ("7z", "t")}}
"""What mounts nothing: program → row → the command, to which the image is added, that does the same work."""
