"""What verbs say: text fit for a terminal, JSON, progress.

Rules that hold here:
- results go to standard output, progress and complaints to standard error;
- whatever comes out of an image is escaped before it reaches a terminal: a name may hold control characters;
- in JSON, bytes of a name that are not UTF-8 appear as lone surrogates (U+DC80 to U+DCFF), so nothing is lost.
"""

import argparse
import json
import os
import re
import sys
import time
from typing import Any

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable(text: str | bytes) -> str:
    """The text in one line without anything that a terminal would obey."""
    return _UNSAFE.sub(_escape, os.fsdecode(text) if isinstance(text, bytes) else text)


def in_json(name: bytes) -> str:
    """A name or value of bytes as a JSON string."""
    return name.decode("utf-8", "surrogateescape")


def say(line: str, code: int) -> int:
    """One line for people, and the exit code that goes with it."""
    print(printable(f"dmgfs: {line}"), file=sys.stderr)
    return code


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=True)
    sys.stdout.write("\n")


def complain(image: str, what: str | bytes, error: BaseException) -> None:
    """The line for one damaged object while the verb goes on."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    sys.stdout.flush()
    print(f"dmgfs: {printable(image)}: {printable(what)}: {printable(reason)}", file=sys.stderr)


def human(size: int) -> str:
    """1536 → "1.5 KiB"."""
    if size < 1024:
        return f"{size} B"
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min((size.bit_length() - 1) // 10, len(units) - 1)
    return f"{size / (1 << 10 * power):.1f} {units[power]}"


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=("auto", "json", "none"),
        default="auto",
        help="auto: a line on a terminal; json: one object per line on standard error",
    )


class Progress:
    """How far a long verb is. `total` may be None while nobody knows it. Cheap to call for every block."""

    INTERVAL = 0.1

    def __init__(self, mode: str, phase: str, total: int | None = None) -> None:
        self.phase = phase
        self.total = total
        self.done = 0
        self._mode = mode if mode != "auto" else "terminal" if sys.stderr.isatty() else "none"
        self._next = 0.0
        self._shown = False

    @property
    def wanted(self) -> bool:
        """Whether anybody looks."""
        return self._mode != "none"

    def advance(self, amount: int, what: str | bytes = "") -> None:
        """`amount` bytes more are done; `what` is being worked on."""
        self.done += amount
        if self._mode != "none":
            now = time.monotonic()
            if now >= self._next:
                self._next = now + self.INTERVAL
                self._show(printable(what))

    def finish(self) -> None:
        """Shows the final state (json) or takes the line away (terminal)."""
        if self._mode == "json":
            self._show("")
        elif self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self, what: str) -> None:
        self._shown = True
        if self._mode == "json":
            line = {"phase": self.phase, "done": self.done, "total": self.total, "what": what}
            sys.stderr.write(json.dumps(line) + "\n")
        else:
            amount = human(self.done)
            if self.total:
                amount = f"{100 * self.done // self.total:3d} %  {amount} of {human(self.total)}"
            room = max(0, os.get_terminal_size(sys.stderr.fileno()).columns - len(amount) - len(self.phase) - 6)
            sys.stderr.write(f"\r\x1b[K{self.phase}  {amount}  {what[-room:] if room else ''}")
        sys.stderr.flush()


class JsonList:
    """Records written to standard output as one JSON list, one by one. `wanted` False: nothing is written."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._separator = "[\n"

    def __enter__(self) -> "JsonList":
        return self

    def add(self, record: dict[str, Any]) -> None:
        sys.stdout.write(self._separator + json.dumps(record, ensure_ascii=True))
        self._separator = ",\n"

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        """Closes the list also on the way out of an error, so that what was written stays readable."""
        if self._wanted:
            sys.stdout.write("[]\n" if self._separator == "[\n" else "\n]\n")
