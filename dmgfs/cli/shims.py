"""dmgfs shims: a folder of commands by which scripts written for Darwin run here unchanged.

    dmgfs shims DIR; PATH=DIR:$PATH sh script              commands that the script calls by name
    PATH=DIR:$PATH BASH_ENV=DIR/darwin.bash bash script    those that it calls by path, too (/usr/bin/stat …)

Rules that hold here:
- a shim does what the Darwin command would for our devices, and hands everything else to the command of this system;
- mount knows the devices of `dmgfs hdik` and `dmgfs vndevice`: memory becomes a RAM disk over the directory, an image is
  mounted by dmgfs; newfs_hfs only notes what it is told, because a RAM disk has no format.
"""

import argparse
import os
import shlex
import sys

from dmgfs.cli.options import WrongUsage
from dmgfs.cli.report import printable

SUMMARY = "write commands into a folder by which Darwin's scripts run here"

USAGE = 64

VERBS = ("hdik", "vndevice", "nbdst")
"""Commands that are verbs of ours."""

OURS = ("mount", "newfs_hfs")
"""Commands that `dmgfs shims --as` plays."""

_FIELDS = (
    "st_dev=%s st_ino=%s st_mode=0%o st_nlink=%s st_uid=%s st_gid=%s st_rdev=0 st_size=%s st_atime=%s st_mtime=%s "
    "st_ctime=%s st_birthtime=%s st_blksize=%s st_blocks=%s st_flags=0"
)

STAT = f"""\
#!/bin/sh
# Darwin's stat -s, made of this system's stat; made by dmgfs shims
[ "$1" = -s ] || exec {{stat}} "$@"
shift
for file do
    facts=$({{stat}} -c '%d %i 0x%f %h %u %g %s %X %Y %Z %W %o %b' -- "$file") || exit
    # shellcheck disable=SC2086 # into words
    printf '{_FIELDS}\\n' $facts
done
"""

CHMOD = """\
#!/bin/sh
# Darwin's chmod takes a mode as stat -s prints it, with the file's type; made by dmgfs shims
case $1 in
    0[0-7][0-7][0-7][0-7][0-7] | 0[0-7][0-7][0-7][0-7][0-7][0-7])
        mode=${{1#"${{1%????}}"}}
        shift
        exec {chmod} "$mode" "$@" ;;
esac
exec {chmod} "$@"
"""

BY_PATH = {
    "stat": ("/usr/bin/stat",),
    "chmod": ("/bin/chmod",),
    "mount": ("/sbin/mount",),
    "newfs_hfs": ("/sbin/newfs_hfs",),
    "hdik": ("/usr/sbin/hdik",),
    "vndevice": ("/usr/libexec/vndevice",),
    "nbdst": ("/sbin/nbdst", "/usr/sbin/nbdst"),
}
"""Where Darwin has them."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as", dest="name", choices=OURS, help=argparse.SUPPRESS)
    parser.add_argument("words", metavar="DIR", nargs="*", help="the folder; made if it is not there")


def run(args: argparse.Namespace) -> int:
    try:
        if args.name is not None:
            from dmgfs.cli import darwincommands

            return darwincommands.mount(args.words) if args.name == "mount" else darwincommands.newfs_hfs(args.words)
        if len(args.words) != 1:
            raise WrongUsage("name one folder")
        _write(args.words[0])
    except WrongUsage as error:
        print(printable(f"dmgfs: {args.name or 'shims'}: {error}"), file=sys.stderr)
        return USAGE
    return 0


# -- writing them ----------------------------------------------------------------------------------------------------


def _write(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    ours = f"{shlex.quote(sys.executable)} -m dmgfs"
    texts = {name: f'#!/bin/sh\nexec {ours} {name} "$@"\n' for name in VERBS}
    texts |= {name: f'#!/bin/sh\nexec {ours} shims --as {name} -- "$@"\n' for name in OURS}
    texts["stat"] = STAT.format(stat=shlex.quote(real_command("stat")))
    texts["chmod"] = CHMOD.format(chmod=shlex.quote(real_command("chmod")))
    for name, text in texts.items():
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o755)
    absolute = os.path.abspath(folder)
    with open(os.path.join(folder, "darwin.bash"), "w", encoding="utf-8") as file:
        file.write("# For BASH_ENV: commands that a script calls by Darwin's paths; made by dmgfs shims\n")
        for name, paths in BY_PATH.items():
            for path in paths:
                file.write(f'function {path} {{ {shlex.quote(os.path.join(absolute, name))} "$@"; }}\n')


def real_command(name: str) -> str:
    """This system's own command, not a shim of ours."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and not _is_shim(path):
            return path
    raise FileNotFoundError(2, "there is no such command", name)


def _is_shim(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(512)
    return b"dmgfs shims" in head or b"-m dmgfs " in head
