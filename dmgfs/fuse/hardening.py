"""What lets a process outlive its surroundings: locked memory, the kernel's favour when memory is short, a mark that spares
it at shutdown. Each is tried and says whether it holds; none of them failing is a reason not to mount.

Standard library only: `dmgfs doctor` asks the same questions without the engine.
"""

import ctypes
import os
import resource
import signal
import struct
from typing import NamedTuple

INITRD_RELEASE = "/etc/initrd-release"
INITRD_VARIABLE = "DMGFS_INITRD"
OMITTED = "/run/sendsigs.omit.d"
CONTINUE_SECONDS = 0.5
"""How long the process stays stopped, at most."""

IMPLIED = ("allow_other", "default_permissions", "dev", "suid")
"""Words for libfuse: others than root live on a root, with devices and setuid programs."""

CAP_IPC_LOCK, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 14, 21, 24
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PR_SET_IO_FLUSHER, _PR_GET_IO_FLUSHER = 57, 58
_CLOCK_MONOTONIC = 1
_NEVER = -1000
_ARG_START = 47  # of /proc/self/stat, counted from 0


class Held(NamedTuple):
    """Whether something holds, and why not or how."""

    holds: bool
    detail: str


def capable(capability: int) -> bool:
    """Whether this process has the capability."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError):
        return False
    return bool(effective >> capability & 1)


def lock_memory() -> Held:
    """What is mapped now is brought into memory and stays there; what is mapped later stays from its first use on, so that
    the reserved but untouched (stacks, a budget) costs nothing."""
    held = may_lock_memory()
    if not held.holds:
        return held
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (_MCL_CURRENT, _MCL_FUTURE | _MCL_ONFAULT):
        if libc.mlockall(flags) != 0:
            return Held(False, os.strerror(ctypes.get_errno()))
    return Held(True, "all of it, now and later")


def may_lock_memory() -> Held:
    """Not with a limit: what is mapped later would fail as soon as it is reached, and the mount with it."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if capable(CAP_IPC_LOCK) or limit == resource.RLIM_INFINITY:
        return Held(True, "no limit")
    return Held(False, f"at most {limit >> 10} KiB may be locked; CAP_IPC_LOCK or `ulimit -l unlimited` is needed")


def spare_from_oom() -> Held:
    """The kernel ends others first when memory runs out."""
    for score in (_NEVER, -500, 0):
        try:
            with open("/proc/self/oom_score_adj", "r+", encoding="ascii", buffering=1) as file:
                file.write(f"{score}\n")
        except OSError:
            continue  # lowering it needs CAP_SYS_RESOURCE
        found = oom_score()
        if found is not None and found <= score:
            return Held(score < 0, f"oom_score_adj {found}")
    return Held(False, f"oom_score_adj stays {oom_score()}; CAP_SYS_RESOURCE is needed")


def oom_score() -> int | None:
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def flush_io() -> Held:
    """Memory that the kernel needs for our own writing never waits for our own mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_IO_FLUSHER, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0))) == 0:
        return Held(True, "set")
    return Held(False, f"{os.strerror(ctypes.get_errno())}; CAP_SYS_RESOURCE is needed")


def in_initrd() -> bool:
    """Whether this is an initial file system, from which the root is mounted."""
    return os.path.exists(INITRD_RELEASE) or os.environ.get(INITRD_VARIABLE) == "1"


def mark_as_root_storage() -> Held:
    """systemd spares a process whose command line begins with @ when it ends all others at shutdown. Right only for one
    that was started before systemd: any other could not be stopped by it at all."""
    if not in_initrd():
        return Held(False, f"not in an initrd (no {INITRD_RELEASE}): use SurviveFinalKillSignal=yes in the unit")
    if os.geteuid() != 0:
        return Held(False, "systemd obeys the mark for root only")
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().rpartition(")")
        address = int(rest.split()[_ARG_START - 2])
        ctypes.memmove(address, b"@", 1)
        with open("/proc/self/cmdline", "rb") as file:
            marked = file.read(1) == b"@"
    except (OSError, ValueError, IndexError):
        return Held(False, "/proc does not tell where the command line is")
    return Held(
        marked, "the command line begins with @" if marked else f"the command line of {name} cannot be changed"
    )


def register_with_sysvinit(folder: str = OMITTED) -> Held:
    """The scripts that end a System V init spare the processes whose numbers lie there. As with the mark: right only for
    one that was started before init."""
    if not in_initrd():
        return Held(False, "not in an initrd")
    path = f"{folder}/dmgfs.{os.getpid()}"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        return Held(False, f"{path}: {error.strerror}")
    return Held(True, path)


class _Event(ctypes.Structure):
    """struct sigevent."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


def keep_continuing(seconds: float = CONTINUE_SECONDS) -> Held:
    """A timer of the kernel's that sends us SIGCONT again and again. At shutdown systemd stops every process, the marked
    ones too, and then looks into the root directory, which waits for us. Call on the main thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "timer_create"):
        try:
            libc = ctypes.CDLL("librt.so.1", use_errno=True)
        except OSError:
            return Held(False, "the C library has no timers")
    signal.signal(signal.SIGCONT, lambda number, frame: None)  # the timer of an ignored signal is not wound up again
    event = _Event(None, signal.SIGCONT, 0, b"")
    timer = ctypes.c_void_p()
    whole, part = int(seconds), int(seconds % 1 * 1e9)
    every = ctypes.create_string_buffer(struct.pack("4l", whole, part, whole, part))
    if (
        libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0
        or libc.timer_settime(timer, 0, every, None) != 0
    ):
        return Held(False, os.strerror(ctypes.get_errno()))
    return Held(True, f"SIGCONT every {seconds} s")
