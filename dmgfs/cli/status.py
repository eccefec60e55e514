"""dmgfs status: what a live mount is doing, or which mounts there are."""

import argparse
import time
from typing import Any

from dmgfs.cli.report import human, print_json, printable

SUMMARY = "show the live mounts, or the figures of one"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="one mount; without: all")
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require

    if args.mountpoint is None:
        return _all(args.json)
    mount = require(args.mountpoint)
    report = {"mountpoint": mount.path, **ask(mount.path, "status")}
    if args.json:
        print_json(report)
    else:
        _show(report)
    return 0


def _all(as_json: bool) -> int:
    """Every live mount in our namespace, once each; a dead one is listed and said to be so."""
    from dmgfs.cli.control import ask
    from dmgfs.fuse.mountpoint import FSTYPE, mounts

    reports: list[dict[str, Any]] = []
    seen: set[str] = set()
    for mount in mounts():
        if mount.fstype != FSTYPE or mount.device in seen:
            continue
        seen.add(mount.device)
        report: dict[str, Any] = {"mountpoint": mount.path, "image": mount.source}
        try:
            report |= ask(mount.path, "status")
        except OSError as error:
            report["problem"] = error.strerror
        reports.append(report)
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            print(printable(f"{report['mountpoint']}: {report['image']}: {report.get('problem') or _brief(report)}"))
    return 0


def _brief(report: dict[str, Any]) -> str:
    shadow = report["shadow"]
    if shadow is None:
        return f"read-only, process {report['pid']}"
    used = f"{human(shadow['used'])} of {human(shadow['budget'])}"
    return f"shadow {shadow['kind']}, {used} used, process {report['pid']}"


def _network(network: dict[str, Any]) -> list[tuple[str, object]]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(network["since"] or 0))
    fetched = f"{network['requests']} requests, {human(network['bytes'])}, {network['retries']} retries"
    blocks = f"{network['blocks in memory']} in memory, {network['blocks on disk']} on disk"
    return [
        ("object", f"{human(network['size'])}, {network['version']}"),
        ("network", f"{fetched}, {network['failures']} failures"),
        ("blocks", f"{blocks}, {network['blocks fetched']} fetched, {network['blocks ahead']} of them ahead"),
        ("kept in", network["cache"] or "memory alone"),
        ("server", f"{network['trouble']}, since {since}" if network["trouble"] else "answers"),
    ]


def _show(report: dict[str, Any]) -> None:
    shadow, cache, lower, loads = report["shadow"], report["cache"], report["lower"], report["loads"]
    errors = ", ".join(f"{kind} {count}" for kind, count in sorted(report["errors"].items())) or "none"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report["since"]))
    lines = [
        ("image", report["image"]),
        ("partition", report["partition"]),
        ("process", f"{report['pid']} since {since}"),
        *(("layer", f"{one['file']}, {one['objects']} objects, {human(one['used'])}") for one in report["layers"]),
        ("shadow", "none: read-only" if shadow is None else shadow["kind"]),
    ]
    if shadow is not None:
        lines += [
            ("used", f"{human(shadow['used'])} of {human(shadow['budget'])}"),
            ("changed", f"{shadow['objects']} objects, {shadow['pages']} pages"),
        ]
        if shadow["snapshots"]:
            text = f"{shadow['snapshots']}, with {shadow['pages of snapshots']} pages of their own"
            lines.append(("snapshots", text))
        if "compressed" in shadow:
            packed = shadow["compressed"]
            text = f"{packed['pages']} pages, {human(packed['pages'] * 4096)} in {human(packed['bytes'])}"
            lines.append(("compressed", f"{text} ({packed['with']})"))
    lines += [
        ("requests", f"{report['requests']}, {report['open files']} open files"),
        ("errors", errors),
        (
            "cache",
            f"{human(cache['used'])} of {human(cache['budget'])}, {cache['hits']} hits, {cache['misses']} misses",
        ),
        ("image asked", f"{lower['asked']} times, {lower['not in memory']} not in memory"),
        ("loads", f"{loads['wanted']} wanted, {loads['ahead']} ahead"),
    ]
    lines += _network(report["network"]) if "network" in report else []
    print(printable(report["mountpoint"]))
    for label, text in lines:
        print(f"  {label:12}{printable(str(text))}")
