"""dmgfs serve: the disk in an image over the network, as an NBD server that virtual machines and whole fleets boot from.

Rules that hold here:
- everything that can be wrong is found out before nbdkit is started, and said in one line with nothing left behind;
- the command returns when clients are served; in the foreground it becomes the server;
- the image is never written.
"""

import argparse
import errno
import os
from typing import TYPE_CHECKING

from dmgfs.cli import code_of
from dmgfs.cli.network import network_of
from dmgfs.cli.options import WrongUsage, choose, convert, memory_size, parse_shadow, parse_size
from dmgfs.cli.report import say
from dmgfs.cli.target import absolute, add_image_options, open_as_told
from overlay.errors import ShadowError

if TYPE_CHECKING:
    from dmgfs.image import Image
    from dmgfs.nbd.address import Address
    from dmgfs.nbd.settings import Settings

SUMMARY = "serve the disk in an image to NBD clients"

USAGE, UNAVAILABLE, CANNOT_CREATE, IN_USE = 64, 69, 73, 75

CACHE_BYTES = 64 << 20
LIMIT = 32
SHARE = 50
"""Per cent of the memory that all shadows in RAM together may take, unless their size is given."""

_CERTIFICATES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, volume=False, cache=False)
    add = parser.add_argument
    add("--nbd", metavar="ADDRESS", required=True, help="where to listen: HOST:PORT, :PORT or unix:PATH")
    add(
        "--shadow",
        metavar="none|ram[:SIZE|:NN%]|FILE|FOLDER",
        help="where what is written goes; none (the default): read-only; FOLDER: a file for each client, which asks for "
        "NAME or NAME/disk0s1 …",
    )
    add("--per-client", action="store_true", help="each connection has a shadow in RAM of its own")
    add("--shadow-limit", metavar="SIZE", help="what one shadow file may grow to")
    add("--second-client", metavar="refuse|read-only|take-over", help="when a shadow has its writer; default refuse")
    add("--known-clients", action="store_true", help="only clients whose shadow file is in the FOLDER already")
    add("--recycle", action="store_true", help="begin with an empty shadow file, whatever is in it")
    add("--force-base", action="store_true", help="take a shadow file that was made over another disk")
    add("-r", "--read-only", action="store_true", help="nothing can be written; shows what is in the shadow")
    add(
        "-x",
        "--export",
        metavar="NAME[=PART]",
        action="append",
        default=[],
        help="a name to ask for, and what it is: disk, disk0s1 …; default: all of them; the first is the default export",
    )
    add("--limit", metavar="N", help=f"clients at a time, default {LIMIT}; 0: any number")
    add("--cache", metavar="SIZE", help="memory for decoded chunks, default 64M; all clients share it")
    tls = parser.add_argument_group("TLS (see nbdkit-tls(1))")
    tls.add_argument("--tls", metavar="off|on|require", help="default: require with one of the others, else off")
    tls.add_argument("--tls-certificates", metavar="FOLDER", help=f"holds {', '.join(_CERTIFICATES)}")
    tls.add_argument("--tls-psk", metavar="FILE", help="pre-shared keys, as psktool writes them")
    tls.add_argument("--tls-verify-peer", action="store_true", help="clients need a certificate of ca-cert.pem's")
    add("--pid-file", metavar="FILE", help="made when clients are served, removed at the end")
    add(
        "--log",
        metavar="FILE|syslog|stderr|none",
        help="where the server reports; default: syslog, or the terminal with -f",
    )
    add("-v", "--verbose", action="store_true", help="tell every request, to find faults")
    add("-f", "--foreground", action="store_true", help="stay in the foreground")


def run(args: argparse.Namespace) -> int:
    from dmgfs.nbd.address import listen, parse_address, uri
    from dmgfs.nbd.background import start
    from dmgfs.nbd.program import NoProgram, find

    try:
        try:
            address = parse_address(args.nbd)
        except ValueError as error:
            raise WrongUsage(f"--nbd {error}") from None
        options = _options_of_nbdkit(args)
        wanted = _settings(args, address)
        program = find()
        settings = _checked(args, wanted)
    except WrongUsage as error:
        return say(f"serve: {error}", USAGE)
    except NoProgram as error:
        return say(f"serve: {error}", UNAVAILABLE)
    except ShadowError as error:
        return say(f"{args.shadow}: {error}", code_of(error))
    try:
        listening = listen(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return say(f"serve: {error.filename}: {error.strerror}; somebody listens there", IN_USE)
        code = CANNOT_CREATE if isinstance(error, FileExistsError) else code_of(error)
        return say(f"serve: {error.filename}: {error.strerror}", code)
    where = uri(address, listening, tls=any(option == "--tls=require" for option in options))
    return start(program, options, listening.detach(), settings, where, foreground=args.foreground)


def _options_of_nbdkit(args: argparse.Namespace) -> list[str]:
    """Raises WrongUsage, OSError."""
    secured = args.tls_certificates or args.tls_psk
    tls = choose("tls", args.tls, ("off", "on", "require"), "require" if secured else "off")
    if (tls == "off") == bool(secured):
        raise WrongUsage("TLS needs --tls-certificates or --tls-psk, and they need --tls on or require")
    if args.tls_certificates and args.tls_psk:
        raise WrongUsage("--tls-certificates or --tls-psk, not both")
    if args.tls_verify_peer and not args.tls_certificates:
        raise WrongUsage("--tls-verify-peer is about --tls-certificates")
    options = [f"--tls={tls}"]
    if args.tls_certificates:
        for name in _CERTIFICATES:
            os.close(os.open(os.path.join(args.tls_certificates, name), os.O_RDONLY | os.O_CLOEXEC))
        options.append(f"--tls-certificates={os.path.abspath(args.tls_certificates)}")
    if args.tls_psk:
        os.close(os.open(args.tls_psk, os.O_RDONLY | os.O_CLOEXEC))
        options.append(f"--tls-psk={os.path.abspath(args.tls_psk)}")
    options += ["--tls-verify-peer"] if args.tls_verify_peer else []
    options += ["--verbose"] if args.verbose else []
    return options


def _settings(args: argparse.Namespace, address: "Address") -> "Settings":
    """What the words alone tell. Raises WrongUsage."""
    from dmgfs.nbd.settings import Settings

    shadow = parse_shadow(args.shadow or "none")
    kind, budget = shadow.kind, None
    if shadow.compress != "none":
        raise WrongUsage(f"--shadow {args.shadow}: a shadow of blocks is not compressed")
    if kind == "file" and os.path.isdir(shadow.path):
        kind = "folder"
    elif kind == "file" and args.shadow.endswith("/"):
        raise WrongUsage(f"--shadow {args.shadow}: there is no such folder; make it first")
    limit = convert("limit", args.limit, int, LIMIT)
    if limit < 0:
        raise WrongUsage(f"--limit {limit}: write how many, or 0")
    second = choose("second-client", args.second_client, ("refuse", "read-only", "take-over"), "refuse")
    if args.per_client and kind not in ("ram", "folder"):
        raise WrongUsage("--per-client: write --shadow ram[:SIZE], or name an existing FOLDER for their files")
    if args.recycle and (kind != "file" or args.read_only):
        raise WrongUsage("--recycle is about a shadow FILE that is written")
    if args.force_base and kind not in ("file", "folder"):
        raise WrongUsage("--force-base is about shadow files")
    if args.known_clients and kind != "folder":
        raise WrongUsage("--known-clients is about a FOLDER of shadow files")
    if args.read_only and kind == "ram":
        raise WrongUsage("--read-only: a shadow in RAM would stay empty")
    if args.shadow_limit is not None and kind not in ("file", "folder"):
        raise WrongUsage("--shadow-limit is about shadow files; write --shadow ram:SIZE")
    if kind == "ram":
        budget = shadow.budget
        if args.per_client and args.shadow == "ram":
            budget = memory_size() * SHARE // 100 // (limit or LIMIT)
    elif args.shadow_limit is not None:
        budget = parse_size(args.shadow_limit)
    network = network_of(args)
    log = args.log or ("stderr" if args.foreground else "syslog")
    return Settings(
        image=args.image if network else absolute(args.image),
        network=(network.timeout, network.folder, network.cache_bytes) if network else None,
        cache_bytes=convert("cache", args.cache, parse_size, CACHE_BYTES),
        replay=not args.no_replay,
        passphrase=None,
        slow_key=args.slow_key,
        exports=(),
        shadow=kind,
        where=shadow.path,
        per_client=args.per_client and kind == "ram",
        budget=budget,
        read_only=args.read_only,
        force_base=args.force_base,
        recycle=args.recycle,
        known_only=args.known_clients,
        second=second,
        log=log if log in ("stderr", "syslog", "none") else os.path.abspath(log),
        limit=limit,
        pid_file=os.path.abspath(args.pid_file) if args.pid_file else "",
        socket=address.path,
        ready=-1,
    )


def _checked(args: argparse.Namespace, settings: "Settings") -> "Settings":
    """The settings with what the image tells; it and the shadow file can be opened. Raises WrongUsage, DmgError,
    ShadowError, OSError."""
    from dataclasses import replace

    from dmgfs.blockshadow import BlockShadow
    from dmgfs.cli.passphrase import passphrase_source
    from dmgfs.identity import disk_identity
    from overlay.file import FileStore

    asked: list[bytes] = []
    source = passphrase_source(args)

    def passphrase() -> bytes:
        asked.append(source())
        return asked[-1]

    with open_as_told(args, settings.cache_bytes, network_of(args), passphrase=passphrase) as image:
        for warning in image.warnings:
            say(f"{image.path}: {warning}", 0)
        exports = _exports(args.export, image)
        if settings.shadow == "file":
            store = FileStore.open_file(
                settings.where,
                disk_identity(image),
                read_only=settings.read_only,
                force_base=settings.force_base,
                recycle=settings.recycle,
            )
            try:
                BlockShadow(image.disk, store)
            finally:
                store.close()
    if settings.shadow == "folder" and not os.access(settings.where, os.R_OK | os.X_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), settings.where)
    if settings.pid_file and not os.access(os.path.dirname(settings.pid_file), os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder is not there, or may not be written to", settings.pid_file)
    if settings.log not in ("stderr", "syslog", "none"):
        os.close(os.open(settings.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return replace(settings, passphrase=asked[-1] if asked else None, exports=exports)


def _exports(wanted: list[str], image: "Image") -> tuple[tuple[str, int, int], ...]:
    """(name, start, size). Raises WrongUsage."""
    from dmgfs.blockshadow import views_of

    parts = {"disk": (0, image.disk.size)}
    parts |= {view.name: (view.start, view.size) for view in views_of(image.partitions, image.disk.size)}
    if not wanted:
        return tuple((name, *place) for name, place in parts.items())
    exports = {}
    for text in wanted:
        name, _, part = text.partition("=")
        part = part or (name if name in parts else "disk")
        if part not in parts:
            raise WrongUsage(f"--export {text}: there is no {part}; there are: {', '.join(parts)}")
        if not name or "/" in name:
            raise WrongUsage(f"--export {text}: write a name without /, and after it perhaps =disk0s1")
        exports[name] = parts[part]
    return tuple((name, *place) for name, place in exports.items())
