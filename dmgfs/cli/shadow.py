"""dmgfs shadow: see, keep, take back and move the changes of a live mount or of a shadow file. One sub-verb per function
here; the work is the daemon's, or the overlay library's.
"""

import argparse
import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dmgfs.cli import candidates, code_of
from dmgfs.cli.options import WrongUsage, convert, parse_shadow, parse_size, shadow_budget
from dmgfs.cli.policy import seconds
from dmgfs.cli.report import JsonList, human, print_json, printable
from dmgfs.cli.shadowcare import check_file, compact, discard, new_file
from dmgfs.cli.shadowfile import add_offline_options, is_file, layer_of, opened, records_of, snapshots_of
from overlay.errors import ShadowError

if TYPE_CHECKING:
    from dmgfs.fuse.mountpoint import Mount

SUMMARY = "changes of a mount: see, keep, take back, resize, attach"

USAGE, DATA_ERROR = 64, 65


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help)

    resize = verb("resize", "give the shadow another size, live")
    resize.add_argument("mountpoint", metavar="MOUNTPOINT")
    resize.add_argument("size", metavar="SIZE", help="bytes, or 512M, 2G, or NN%% of the memory")
    attach = verb("attach", "make a live read-only mount writable")
    attach.add_argument("mountpoint", metavar="MOUNTPOINT")
    attach.add_argument(
        "shadow", metavar="ram[:SIZE|:NN%][,compress=zstd]|FILE|auto:...", help="where changes go from now on"
    )
    attach.add_argument("--wait", metavar="SECONDS", help="auto: how long to wait for the first one's folder")
    attach.add_argument("--force-base", action="store_true", help="take a file that was made over another image")
    attach.add_argument("--recycle", action="store_true", help="begin with an empty file, whatever is in it")
    attach.add_argument("--preallocate", metavar="SIZE", help="reserve room for the file now")
    diff = verb("diff", "list what differs from the image")
    diff.add_argument("where", metavar="MOUNTPOINT|FILE")
    diff.add_argument("--json", action="store_true", help="write a JSON list")
    add_offline_options(diff)
    layer = verb("export", "write the changes as a layer for container tools")
    layer.add_argument("where", metavar="MOUNTPOINT|FILE")
    add_offline_options(layer)
    layer.add_argument("--tar", dest="output", metavar="FILE|-", required=True, help="where to; - is standard output")
    save = verb("save", "copy the changes of a live mount into a new shadow file")
    save.add_argument("mountpoint", metavar="MOUNTPOINT")
    save.add_argument("file", metavar="FILE")
    reset = verb("reset", "take the changes of a live mount back: all, or those of one object and what is below it")
    reset.add_argument("mountpoint", metavar="MOUNTPOINT")
    reset.add_argument(
        "path", metavar="PATH", nargs="?", help="as the image has it, or as diff shows it; also one that was deleted"
    )
    snapshot = verb("snapshot", "keep what a shadow is now under a name, and go back to it; without copying anything")
    snapshot.add_argument("action", choices=("create", "list", "rollback", "delete"))
    snapshot.add_argument("where", metavar="MOUNTPOINT", help="for list, a shadow FILE that nobody uses will do, too")
    snapshot.add_argument("name", metavar="NAME", nargs="?", help="of the snapshot")
    snapshot.add_argument("--json", action="store_true", help="list: write JSON")
    check = verb("check", "say whether a shadow file is sound")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--json", action="store_true", help="write JSON")
    away = verb("discard", "remove a shadow file that nobody uses, if it is one")
    away.add_argument("where", metavar="FILE", help="of a live mount, it says what to do instead")
    smaller = verb(
        "compact", "give back what a shadow holds for nothing: of a live mount, or of a shadow file that nobody uses"
    )
    smaller.add_argument("where", metavar="MOUNTPOINT|FILE")


def run(args: argparse.Namespace) -> int:
    try:
        return int(_VERBS[args.what](args))
    except WrongUsage as error:
        print(printable(f"dmgfs: shadow {args.what}: {error}"), file=sys.stderr)
        return USAGE
    except ShadowError as error:
        about = args.file if "file" in args else args.where
        print(printable(f"dmgfs: {about}: {error}"), file=sys.stderr)
        return code_of(error)


def _resize(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require

    mount = require(args.mountpoint)
    now = ask(mount.path, "resize", size=shadow_budget(args.size, args.size))
    print(f"{human(now['used'])} of {human(now['budget'])} used")
    return 0


def _attach(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require
    from dmgfs.fuse.remount import is_read_only, make_writable

    mount = require(args.mountpoint)
    read_only = is_read_only(mount.path)
    if read_only and os.geteuid() != 0:
        text = "the kernel mounted it read-only, and only root can change that; mount with --late-shadow next time"
        raise OSError(errno.EPERM, text, args.mountpoint)
    preallocate = convert("preallocate", args.preallocate, parse_size, 0)
    if candidates.is_auto(args.shadow):
        _attach_first(args, mount, preallocate)
    else:
        _attach_one(args, mount, args.shadow, preallocate)
    if read_only:
        make_writable(mount.path)
        ask(mount.path, "settle")
    return 0


def _attach_first(args: argparse.Namespace, mount: "Mount", preallocate: int) -> None:
    """The first one that can be had. Raises the last reason why not."""
    found = candidates.choose(args.shadow, seconds(args.wait)).others
    for number, one in enumerate(found, 1):
        name = one.path if one.kind == "file" else f"ram:{one.budget},compress={one.compress}"
        try:
            _attach_one(args, mount, name, preallocate if one.kind == "file" else 0)
        except OSError as error:
            if number == len(found) or (error.errno == errno.EBUSY and "a shadow already" in str(error.strerror)):
                raise
            print(printable(f"dmgfs: {name}: {error.strerror or error}: it is passed over"), file=sys.stderr)
        else:
            print(printable(f"changes go to {name}"))
            return


def _attach_one(args: argparse.Namespace, mount: "Mount", shadow: str, preallocate: int) -> None:
    from dmgfs.cli.control import ask

    if shadow.partition(",")[0].partition(":")[0] == "ram":
        if args.recycle or preallocate:
            raise WrongUsage("--recycle and --preallocate are about a shadow FILE")
        wanted = parse_shadow(shadow)
        ask(mount.path, "attach", size=wanted.budget, compress=wanted.compress)
    else:
        path = os.path.abspath(shadow)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(path, flags, 0o600)
        try:
            _require_elsewhere(file, mount.device, path)
            wish = {"force": args.force_base, "recycle": args.recycle, "preallocate": preallocate}
            ask(mount.path, "attach", [file], seconds=None, path=path, **wish)
        finally:
            os.close(file)


def _require_elsewhere(file: int, device: str, path: str) -> None:
    """A shadow inside of its own mount would wait for itself."""
    status = os.fstat(file)
    if f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" == device:
        raise OSError(errno.EINVAL, "it lies in the mount itself", path)


def _diff(args: argparse.Namespace) -> int:
    with JsonList(args.json) as shown:

        def show(record: dict[str, Any]) -> None:
            if args.json:
                shown.add(record)
            else:
                print(_in_words(record))

        if is_file(args.where):
            with opened(args) as overlay:
                for record in records_of(overlay):
                    show(record)
        else:
            _diff_live(args.where, args.snapshot, show)
    return 0


def _diff_live(mountpoint: str, snapshot: str | None, show: Callable[[dict[str, Any]], None]) -> None:
    """The daemon writes lines into a pipe while we show them."""
    from dmgfs.cli.control import ask, require

    mount = require(mountpoint)
    reading, writing = os.pipe()
    failures: list[OSError] = []

    def fetch() -> None:
        try:
            ask(mount.path, "diff", [writing], seconds=None, snapshot=snapshot)
        except OSError as error:
            failures.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            show(json.loads(line))
    thread.join()
    if failures:
        raise failures[0]


def _in_words(record: dict[str, Any]) -> str:
    path = record["path"] + "/" if record["type"] == "directory" else record["path"]
    if "source" in record:
        path = f"{record['source']} -> {path}"
    what = f"  ({', '.join(record['what'])})" if "what" in record else ""
    return printable(f"{record['change']:9} {path}{what}")


def _export(args: argparse.Namespace) -> int:
    if is_file(args.where):
        with opened(args) as overlay, _tar(args) as file, os.fdopen(os.dup(file), "wb", buffering=1 << 18) as output:
            sockets = layer_of(overlay, output.write)
    else:
        from dmgfs.cli.control import ask, require

        mount = require(args.where)
        with _tar(args) as file:
            if args.output != "-":
                _require_elsewhere(file, mount.device, args.output)
            sockets = ask(mount.path, "export", [file], seconds=None, snapshot=args.snapshot)["sockets"]
    if sockets:
        print(f"dmgfs: {sockets} sockets were left out, tar cannot hold them", file=sys.stderr)
    return 0


@contextmanager
def _tar(args: argparse.Namespace) -> Iterator[int]:
    """Where the layer goes."""
    if args.output == "-":
        sys.stdout.flush()
        file = os.dup(sys.stdout.fileno())
    else:
        from dmgfs.cli.destination import require_apart

        inputs = [args.where] if is_file(args.where) else []
        require_apart(args.output, [*inputs, *args.shadow_ro, *([args.image] if args.image is not None else [])])
        file = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _save(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require

    mount = require(args.mountpoint)
    with new_file(args.file) as file:
        _require_elsewhere(file, mount.device, args.file)
        done = ask(mount.path, "save", [file], seconds=None, path=os.path.abspath(args.file))
    print(f"{done['objects']} objects saved")
    return 0


def _reset(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import Refused, ask, require

    mount = require(args.mountpoint)
    if args.path is None:
        done = ask(mount.path, "reset", seconds=None)
    else:
        try:
            done = ask(mount.path, "reset", seconds=None, path=_below(args.path, mount.path))
        except Refused as error:
            raise OSError(error.errno, f"{args.path}: {error.strerror}", mount.path) from None
    _drop_names(mount.path)
    print(f"{done['objects']} objects are the image's again")
    return 0


def _below(path: str, mountpoint: str) -> str:
    """A path in the image; one that names the mount point, too, is taken as what it is."""
    top = mountpoint.rstrip("/") + "/"
    return path[len(top) :] if (path + "/").startswith(top) else path


def _drop_names(path: str) -> None:
    """The kernel forgets all names that nobody uses: the daemon took back those that it knows the spelling of."""
    from dmgfs.fuse.remount import change

    try:
        change(path, [])
    except OSError:
        return  # not root


def _snapshot(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require

    offline = is_file(args.where)
    if args.action == "list":
        found = snapshots_of(args.where) if offline else ask(require(args.where).path, "snapshots")
        if args.json:
            print_json(found)
        for one in found if not args.json else ():
            made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["made"]))
            print(printable(f"{one['name']}  {made}  {one['objects']} objects, {one['pages']} pages"))
        return 0
    if args.name is None:
        raise WrongUsage(f"{args.action} which one? Give a NAME")
    if offline:
        raise WrongUsage(
            f"{args.where} is no mount point: mount the image with this shadow to {args.action} a snapshot"
        )
    mount = require(args.where)
    do = {"create": "snapshot", "rollback": "rollback", "delete": "forget"}[args.action]
    ask(mount.path, do, seconds=None, name=args.name)
    if args.action == "rollback":
        _drop_names(mount.path)
    return 0


_VERBS = {
    "resize": _resize,
    "attach": _attach,
    "diff": _diff,
    "export": _export,
    "save": _save,
    "reset": _reset,
    "snapshot": _snapshot,
    "check": check_file,
    "discard": discard,
    "compact": compact,
}
