"""dmgfs mount: an image appears in a directory.

Rules that hold here:
- the command returns when the mount answers, or with one line that says why not and nothing mounted;
- the engine, pyfuse3 and trio are imported in the child that will serve, after the fork.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dmgfs.cli import candidates
from dmgfs.cli.extras import add_extra_options, check, extras, kernel_words
from dmgfs.cli.network import network_of, shown
from dmgfs.cli.options import (
    Shadow,
    Words,
    WrongUsage,
    choose,
    convert,
    merge,
    parse_shadow,
    parse_size,
    parse_words,
)
from dmgfs.cli.policy import Policy, add_policy_options, parse_policy
from dmgfs.cli.report import say
from dmgfs.cli.target import absolute, add_image_options, open_as_told
from dmgfs.cli.view import add_view_options, view_of

if TYPE_CHECKING:
    from dmgfs.fuse.serve import Shadow as ServedShadow
    from dmgfs.lower import View
    from overlay.store import Store
    from overlay.superblock import Base

SUMMARY = "mount an image on a directory"

USAGE, SOFTWARE = 64, 70

CACHE_BYTES = 32 << 20

MOST_LAYERS = 16
"""Every name and attribute that is not cached is looked for in all of them."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, cache=False)
    add = parser.add_argument
    add("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    add(
        "--shadow",
        metavar="none|ram[:SIZE|:NN%][,compress=zstd]|FILE|auto:...",
        help="where changes go; none (the default): read-only; FILE: made if there is none, and kept; "
        "auto:[RULE,]FILE,FILE,ram: the first that can be had (RULE: -LOCAL-, -NETWORK-, -LOCAL_ONLY-, -NETWORK_ONLY-)",
    )
    add(
        "--shadow-ro",
        metavar="FILE",
        action="append",
        help="a saved shadow to lie below, for reading; several: each above the one before",
    )
    add("--compress", metavar="zstd|none", help="the same as ,compress=… after --shadow ram, for -o and fstab")
    add("--recycle", action="store_true", help="begin with an empty shadow file, whatever is in it")
    add("--force-base", action="store_true", help="take a shadow file that was made over another image")
    add("--preallocate", metavar="SIZE", help="reserve room for the shadow file")
    add("--late-shadow", action="store_true", help="read-only until `dmgfs shadow attach`, which needs no root then")
    add("--cache", metavar="SIZE", help="memory for decoded chunks, default 32M")
    add_view_options(parser)
    add(
        "--log",
        metavar="FILE|syslog|kmsg|stderr|none",
        help="where the daemon reports, default syslog, or stderr with -f",
    )
    add(
        "--acl",
        action="store_true",
        help="keep and obey POSIX access control lists (costs a request per object used)",
    )
    add(
        "--requests",
        metavar="direct|pyfuse3",
        help="whether the most frequent requests are answered without pyfuse3 (direct, the default, is faster)",
    )
    add_extra_options(parser)
    add_policy_options(parser)
    add("-o", dest="words", metavar="OPTION,...", action="append", default=[], help="options as in fstab")
    add("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.set_defaults(sloppy=False)


def run(args: argparse.Namespace) -> int:
    from dmgfs.fuse import daemon, mountpoint

    try:
        words = parse_words(args.words, sloppy=args.sloppy)
        if words.remount:
            from dmgfs.cli.remount import remount

            return remount(args, words)
        merge(args, words.ours)
        policy = parse_policy(args)
        shadow = (
            candidates.choose(args.shadow, policy.wait)
            if candidates.is_auto(args.shadow)
            else _plain(args.shadow, args.compress)
        )
        if shadow.kind == "auto" and args.compress is not None:
            raise WrongUsage(f"--shadow {args.shadow}: write ram\\,compress={args.compress} in the list")
        args.shadow_ro = _layers(args.shadow_ro or words.layers, shadow)
        preallocate = convert("preallocate", args.preallocate, parse_size, 0)
        if shadow.kind not in ("file", "auto") and (
            args.recycle or preallocate or (args.force_base and not args.shadow_ro)
        ):
            raise WrongUsage("--recycle, --force-base and --preallocate are about a shadow FILE")
        cache_bytes = convert("cache", args.cache, parse_size, CACHE_BYTES)
        view = view_of(args)
        args.requests = choose("requests", args.requests, ("direct", "pyfuse3"), "direct")
        shadow = check(args, shadow)
        args.network = network_of(args)
    except WrongUsage as error:
        return say(f"mount: {error}", USAGE)
    daemon.keep_standard_streams()
    kept_visible = []
    if args.network is None:
        args.image = absolute(args.image)
        kept_visible = [args.image if os.path.exists(args.image) else args.image.partition("//")[0]]
    if args.log not in (None, "stderr", "syslog", "kmsg", "none"):
        args.log = os.path.abspath(args.log)
        kept_visible.append(args.log)
    for file in [*args.shadow_ro, *(one.path for one in (shadow, *shadow.others) if one.kind == "file")]:
        if os.path.exists(file) and os.path.exists(args.image) and os.path.samefile(file, args.image):
            return say(f"mount: the shadow {file}: that is the image itself", USAGE)
        kept_visible.append(file)
    path = mountpoint.check(args.mountpoint, *kept_visible)
    with mountpoint.claim(path, args.mountpoint) as claimed:
        ready = None if args.foreground else daemon.into_background(keep_stderr=args.log == "stderr", leave=sys.exit)

        def answered() -> None:
            claimed()
            if "rw" in words.kernel and args.shadow is None and shadow.kind == "none" and not args.late_shadow:
                # As mount(8) does with a source that is write-protected.
                how = "shadow=ram or shadow=FILE gives it one"
                say(f"{shown(args.image)}: mounted read-only: no shadow for changes; {how}", 0)
            if ready is not None:
                ready()

        return _serve(args, words, shadow, path, cache_bytes, preallocate, view, policy, answered)


def _serve(
    args: argparse.Namespace,
    words: Words,
    shadow: Shadow,
    path: str,
    cache_bytes: int,
    preallocate: int,
    view: "View",
    policy: Policy,
    ready: Callable[[], None],
) -> int:
    """In the process that serves, from opening the image to the end."""
    try:
        from dmgfs.cli.outcome import outcome
        from dmgfs.fuse.serve import serve
        from dmgfs.layers import stacked
    except ImportError as error:
        return say(f"{error}; mounting needs pyfuse3 and trio", SOFTWARE)
    chosen = extras(args, shadow)
    open_file = None if chosen.to_ram is None else chosen.to_ram.open_file
    serving = partial(
        serve,
        lambda: policy.patiently(lambda: open_as_told(args, cache_bytes, args.network, open_file=open_file)),
        path,
        partition=args.partition,
        view=view,
        layers=partial(stacked, paths=args.shadow_ro, force_base=args.force_base, attempt=policy.patiently),
        shadow=_shadow(args, shadow, preallocate, policy) if chosen.overlay_budget is None else None,
        late_shadow=args.late_shadow,
        access_lists=args.acl,
        kernel_words=kernel_words(args, words.kernel),
        log_target=args.log,
        foreground=args.foreground,
        ready=ready,
        extras=chosen,
        direct=args.requests == "direct",
    )
    return outcome(serving, path, args.image, shadow.path)


def _layers(files: Sequence[str], shadow: Shadow) -> list[str]:
    """Absolute paths. Raises WrongUsage."""
    layers = [os.path.abspath(file) for file in files]
    if len(layers) > MOST_LAYERS:
        raise WrongUsage(f"--shadow-ro: {len(layers)} layers, at most {MOST_LAYERS} can lie on each other")
    for number, layer in enumerate(layers):
        if layer in layers[:number] or layer == shadow.path:
            raise WrongUsage(f"--shadow-ro {files[number]}: the same file twice")
    return layers


def _shadow(args: argparse.Namespace, wanted: Shadow, preallocate: int, policy: Policy) -> "ServedShadow | None":
    from dmgfs.fuse.serve import Shadow as ServedShadow
    from dmgfs.squeezing import ram_store
    from overlay.file import FileStore

    def open_file(base: "Callable[[], Base]") -> "Store":
        return policy.patiently(
            lambda: FileStore.open_file(
                wanted.path, base(), force_base=args.force_base, recycle=args.recycle, preallocate=preallocate
            )
        )

    if wanted.kind == "none":
        return None
    if wanted.kind == "ram":
        store = ram_store(wanted.budget, wanted.compress)
        return ServedShadow("ram", lambda base: store)
    if wanted.kind == "auto":
        return _first_of(args, wanted.others, preallocate, policy)
    return ServedShadow(wanted.path, open_file, policy.otherwise(wanted.path))


def _first_of(args: argparse.Namespace, wanted: Sequence[Shadow], preallocate: int, policy: Policy) -> "ServedShadow":
    """The first one that can be had; what the policy says if none can."""
    first, *rest = wanted
    shadow = _shadow(args, first, preallocate, replace(policy, wait=0.0))
    assert shadow is not None
    if not rest:
        return shadow

    def pass_over(error: Exception) -> "ServedShadow":
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        policy.say(f"{shadow.name}: {reason}: it is passed over")
        return _first_of(args, rest, preallocate, policy)

    return shadow._replace(otherwise=pass_over)


def _plain(text: str | None, compress: str | None) -> Shadow:
    return parse_shadow(text or "none", compress)
