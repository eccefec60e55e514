"""mount.dmgfs: what mount(8) runs for `-t dmgfs`. The program dmgfs under another name.

Rules that hold here:
- the calling convention is mount(8)'s (`mount.dmgfs SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]`), and so are the exit
  codes; what is said is what `dmgfs mount` says;
- it returns when the mount answers;
- with -N everything happens in that namespace: image, shadow and mount point are looked up there, and so is this program;
- standard library only, and the verb.

There is no umount.dmgfs: umount(8) asks the kernel, which is enough, and would look for a helper only now and then.
"""

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence

from dmgfs.cli import SOFTWARE, USAGE, Parser, fail, parser_of, run_verb
from dmgfs.cli.network import shown
from dmgfs.cli.options import WrongUsage, parse_words
from dmgfs.cli.report import printable

BAD_CALL, SYSTEM, BUG, INTERRUPTED, FAILED = 1, 2, 4, 8, 32

CODES = {0: 0, USAGE: BAD_CALL, 71: SYSTEM, SOFTWARE: BUG, 130: INTERRUPTED}
"""Of mount(8), for ours; FAILED for all others."""

TYPES = ("dmgfs", "fuse.dmgfs")

CLONE_NEWNS = 0x00020000


def main(program: str, arguments: Sequence[str]) -> int:
    """`program` is the name that it was called by. Returns mount(8)'s exit code, and in a daemon our own, which its parent
    translates."""
    caller = os.getpid()
    try:
        code = _mount(mount_parser(program).parse_args(arguments))
    except WrongUsage as error:
        print(printable(f"{program}: {error}"), file=sys.stderr)
        code = USAGE
    except OSError as error:
        code = fail(None, error)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    return code if os.getpid() != caller else CODES.get(code, FAILED)


def mount_parser(program: str = "mount.dmgfs") -> argparse.ArgumentParser:
    parser = Parser(prog=program, description="mount a disk image, for mount(8)")
    add = parser.add_argument
    add("image", metavar="IMAGE", help="disk image; outer.dmg//inner.dmg names an image in an image")
    add("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    add("-o", dest="words", metavar="OPTION,...", action="append", default=[], help="options as in fstab")
    add("-r", dest="words", action="append_const", const="ro", help="the same as -o ro")
    add("-w", dest="words", action="append_const", const="rw", help="the same as -o rw")
    add("-f", dest="fake", action="store_true", help="only see whether the options are right")
    add("-s", dest="sloppy", action="store_true", help="ignore options that there are not")
    add("-v", dest="verbose", action="store_true", help="say what was mounted")
    add("-n", dest="no_table", action="store_true", help="nothing: dmgfs keeps no table of mounts")
    add("-N", dest="namespace", metavar="NAMESPACE", help="mount namespace: a process number or a file")
    add("-t", dest="type", metavar="TYPE", choices=TYPES, help="dmgfs or fuse.dmgfs")
    return parser


def _mount(args: argparse.Namespace) -> int:
    if args.namespace is not None:
        enter(args.namespace)
    words = [word for text in args.words for word in text.split(",")]
    remount = parse_words(args.words, sloppy=args.sloppy).remount
    if args.fake or ("nofail" in words and not remount and _is_absent(args.image)):
        return 0  # nofail: as mount(8) does with a device that is not there
    verb = parser_of("mount").parse_args(["--", args.image, args.mountpoint])
    verb.words, verb.sloppy = args.words, args.sloppy
    caller = os.getpid()
    try:
        code = run_verb("mount", verb)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    if args.verbose and not code and os.getpid() == caller:
        print(printable(f"{args.mountpoint}: {'changed' if remount else f'{shown(args.image)} is mounted'}"))
    return code


def _is_absent(image: str) -> bool:
    if "://" in image:
        return False  # nobody knows before it was asked for
    return os.path.isabs(image) and not os.path.exists(image) and not os.path.exists(image.partition("//")[0])


def enter(namespace: str) -> None:
    """This process goes into that mount namespace. Raises OSError."""
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdecimal() else namespace
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNS) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)
