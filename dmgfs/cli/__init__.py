"""The command line: one verb per module, imported only when it is chosen, and the one table of exit codes.

Rules that hold here:
- a verb module has SUMMARY (one line), configure(parser) and run(args) -> exit code, and costs nothing to import: what it
  needs of the engine it imports in `run`;
- every failure ends in one line `dmgfs: IMAGE: what is wrong` on standard error and an exit code of sysexits(3);
- `dmgfs IMAGE MOUNTPOINT` without a verb is read as mount;
- called mount.dmgfs, the program keeps the conventions of mount(8): see `helper`.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from dmgfs import __version__
from dmgfs.cli.report import printable
from dmgfs.errors import (
    CorruptImage,
    DmgError,
    NotAnImage,
    PassphraseNeeded,
    Unsupported,
    WhichPartition,
    WrongBootArgument,
    WrongPassphrase,
)
from overlay.errors import NotAShadow, ShadowBase, ShadowDamaged, ShadowError, ShadowInUse

VERBS = (
    "mount",
    "unmount",
    "enter",
    "status",
    "shadow",
    "info",
    "ls",
    "cat",
    "stat",
    "xattr",
    "extract",
    "verify",
    "convert",
    "create",
    "newfs",
    "commit",
    "diff",
    "patch",
    "playlist",
    "ramdisk",
    "attach",
    "detach",
    "serve",
    "imageboot",
    "doctor",
    "hdik",
    "vndevice",
    "nbdst",
    "shims",
    "nbi",
    "rc",
)

CANNOT_CREATE = 73
USAGE, DATA_ERROR, NO_INPUT, UNAVAILABLE, SOFTWARE, OS_ERROR, IO_ERROR, NO_PERMISSION = 64, 65, 66, 69, 70, 71, 74, 77
SHADOW_IS_OTHER, SHADOW_IN_USE, SHADOW_DAMAGED, SHADOW_OF_ANOTHER = 73, 75, 76, 78

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (NotAnImage, NO_INPUT),
    (CorruptImage, DATA_ERROR),
    (Unsupported, UNAVAILABLE),
    (WhichPartition, USAGE),
    (WrongBootArgument, USAGE),
    (PassphraseNeeded, NO_PERMISSION),
    (WrongPassphrase, NO_PERMISSION),
    (DmgError, DATA_ERROR),
    (NotAShadow, SHADOW_IS_OTHER),
    (ShadowInUse, SHADOW_IN_USE),
    (ShadowDamaged, SHADOW_DAMAGED),
    (ShadowBase, SHADOW_OF_ANOTHER),
    (ShadowError, DATA_ERROR),
    (FileNotFoundError, NO_INPUT),
    (NotADirectoryError, NO_INPUT),
    (IsADirectoryError, NO_INPUT),
    (PermissionError, NO_PERMISSION),
    (OSError, IO_ERROR),
    (MemoryError, OS_ERROR),
)
"""The first line that fits an exception gives its code."""

_CANNOT_CREATE = (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Of the file that a verb writes these say CANNOT_CREATE."""


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for wrong usage, and messages in our form."""

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    program = os.path.basename(sys.argv[0])
    if arguments is None and program.startswith("mount."):
        from dmgfs.cli import helper

        return helper.main(program, words)
    if words and words[0] in ("-V", "--version"):
        print(f"dmgfs {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else USAGE
    if words[0] not in VERBS:
        if len([word for word in words if not word.startswith("-")]) < 2:
            print(f"dmgfs: {words[0]!r} is no verb; there are: {', '.join(VERBS)}", file=sys.stderr)
            return USAGE
        words.insert(0, "mount")
    verb, *rest = words
    return run_verb(verb, parser_of(verb).parse_args(rest))


def parser_of(verb: str) -> argparse.ArgumentParser:
    """What reads the arguments of this verb."""
    module = importlib.import_module(f"dmgfs.cli.{verb}")
    parser = Parser(prog=f"dmgfs {verb}", description=module.SUMMARY)
    module.configure(parser)
    return parser


def run_verb(verb: str, args: argparse.Namespace) -> int:
    """The exit code. The parent of a daemon raises SystemExit instead."""
    module = importlib.import_module(f"dmgfs.cli.{verb}")
    try:
        return int(module.run(args))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; let the interpreter not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (DmgError, OSError, MemoryError) as error:
        return fail(getattr(args, "image", None), error, getattr(args, "output", None))


def fail(image: str | None, error: BaseException, output: str | None = None) -> int:
    """Prints the line for the error and returns its exit code. output: what the verb writes; a fault of that is
    said of it alone."""
    if image and "://" in image:
        from dmgfs.cli.network import shown

        image = shown(image)
    text = str(error) or type(error).__name__
    subject = f"{image}: " if image else ""
    code = code_of(error)
    if isinstance(error, OSError) and error.strerror:
        about = error.filename if error.filename is not None else ""
        if isinstance(about, bytes):
            about = os.fsdecode(about)
        text = error.strerror if about in ("", image) else f"{about}: {error.strerror}"
        if about and about == output:
            subject, text = f"{output}: ", error.strerror
            code = CANNOT_CREATE if isinstance(error, _CANNOT_CREATE) else code
    elif isinstance(error, MemoryError):
        text = str(error) or "out of memory"
    print(printable(f"dmgfs: {subject}{text}"), file=sys.stderr)
    return code


def code_of(error: BaseException) -> int:
    """The exit code for an error of one of the kinds above."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def _help() -> str:
    present = [verb for verb in VERBS if importlib.util.find_spec(f"dmgfs.cli.{verb}") is not None]
    summaries = [f"  {verb:10}{importlib.import_module(f'dmgfs.cli.{verb}').SUMMARY}" for verb in present]
    return "\n".join(["usage: dmgfs VERB ...    (dmgfs VERB --help tells more)", "", *summaries])
