"""What a mount does when nobody is there to decide: --on-error, --wait, --verify. Rules as in `options`.

What was decided is said in one line: on the console for a live root (whose standard error may lead nowhere), on standard
error otherwise, and in the log.
"""

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dmgfs.cli.options import DEFAULT_SHARE, WrongUsage, choose, memory_size
from dmgfs.cli.report import printable
from overlay.errors import ShadowInUse

if TYPE_CHECKING:
    from dmgfs.fuse.serve import Shadow

log = logging.getLogger(__name__)

CONSOLE = "/dev/console"
POLL_SECONDS = 0.2
MOST_SECONDS = 86400

T = TypeVar("T")

_LATE = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.EHOSTUNREACH})
"""What a disk says that is not there yet, and a server that cannot be reached yet."""


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--on-error",
        metavar="fail|ro|ram",
        help="when the shadow file cannot be had (not there, in use, damaged, of another image): fail (default), mount "
        "read-only, or keep changes in memory; the file is left as it is",
    )
    add("--wait", metavar="SECONDS", help="how long to wait for an image or a shadow file that is late or in use")
    add(
        "--verify",
        metavar="none|full",
        help="full: compute every checksum of the image before it is mounted; default none",
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """on_error: "fail", "ro" or "ram". wait: seconds. verify: all checksums first. console: where to say what was done."""

    on_error: str
    wait: float
    verify: bool
    console: bool

    def patiently(self, attempt: Callable[[], T]) -> T:
        """attempt(), again and again while it fails for want of what may be late. Raises what it raises in the end."""
        end = time.monotonic() + self.wait
        while True:
            try:
                return attempt()
            except (OSError, ShadowInUse) as error:
                late = isinstance(error, ShadowInUse) or error.errno in _LATE
                if not late or time.monotonic() >= end:
                    raise
            time.sleep(POLL_SECONDS)

    def otherwise(self, name: str) -> "Callable[[Exception], Shadow | None] | None":
        """What to do instead of the shadow file `name`, given why it cannot be had; None: nothing."""
        if self.on_error == "fail":
            return None

        def decide(error: Exception) -> "Shadow | None":
            if self.instead_of(name, error) == "none":
                return None
            from dmgfs.fuse.serve import Shadow
            from overlay.ram import RamStore

            budget = memory_size() * DEFAULT_SHARE // 100
            return Shadow("ram", lambda base: RamStore(budget))

        return decide

    def instead_of(self, name: str, error: Exception) -> str:
        """ "none" or "ram", said with the reason. Raises `error` where failing is the policy."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if self.on_error == "ro":
            self.say(f"{name}: {reason}: mounted read-only instead (--on-error ro)")
            return "none"
        if self.on_error == "ram":
            self.say(f"{name}: {reason}: changes stay in memory and will be lost (--on-error ram)")
            return "ram"
        raise error

    def say(self, line: str) -> None:
        text = printable(f"dmgfs: {line}")
        log.warning("%s", text)
        if self.console and _to_console(text):
            return
        print(text, file=sys.stderr, flush=True)


def parse_policy(args: argparse.Namespace) -> Policy:
    """Raises WrongUsage."""
    return Policy(
        choose("on-error", args.on_error, ("fail", "ro", "ram"), "fail"),
        seconds(args.wait),
        choose("verify", args.verify, ("none", "full"), "none") == "full",
        args.liveroot,
    )


def seconds(text: str | None) -> float:
    """Of --wait. Raises WrongUsage."""
    if text is None:
        return 0.0
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= MOST_SECONDS:
        raise WrongUsage(f"--wait {text}: write seconds, 0 to {MOST_SECONDS}")
    return number


def _to_console(text: str) -> bool:
    try:
        console = os.open(CONSOLE, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(console, f"{text}\r\n".encode())
    except OSError:
        return False
    finally:
        os.close(console)
    return True
