"""dmgfs info: what an image is made of, from the container to the volumes. Reads headers only, no file contents; nothing
of FUSE is imported.

The exit code is 0 also for an image without a volume that could be mounted: the question was what it is. It is that of
the error when the image itself cannot be opened.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmgfs.cli.report import human, print_json, printable
from dmgfs.cli.stat import date
from dmgfs.cli.target import add_image_options, open_target
from dmgfs.errors import DmgError
from dmgfs.flags import encoding_name

if TYPE_CHECKING:
    from dmgfs.image import Image
    from dmgfs.partitions import Partition
    from dmgfs.remote import RemoteSource
    from dmgfs.volume import VolumeInfo

SUMMARY = "show what an image is made of"


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, volume=False)
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    with open_target(args) as image:
        facts = gather(image)
    if args.json:
        print_json(facts)
    else:
        print("\n".join(printable(line) for line in lines(facts)))
    return 0


def gather(image: "Image") -> dict[str, Any]:
    """All facts as JSON types. Sizes in bytes, dates in seconds since 1970."""
    container = image.container
    details = {key: value for key, value in container.details.items() if key != "warnings"}
    stored = sum(_size_on_disk(path) for path in container.files) if image.remote is None else image.remote.size
    facts: dict[str, Any] = {
        "image": image.path,
        "container": {"kind": container.kind, **details, "files": [str(path) for path in container.files]},
        "stored_size": stored,
        "disk_size": image.disk.size,
        "compression_ratio": round(image.disk.size / stored, 2) if stored else None,
        **({} if image.remote is None else {"network": _network(image.remote)}),
        "map": {"scheme": image.scheme, "block_size": image.map.block_size},
        "partitions": [_partition(image, one) for one in image.partitions],
        "warnings": image.warnings,
    }
    if image.outer is not None:
        facts["outer"] = gather(image.outer)
    return facts


def _network(remote: "RemoteSource") -> dict[str, Any]:
    report = remote.report()
    return {name: report[name] for name in ("url", "size", "version")}


def _size_on_disk(path: Path) -> int:
    """Of a bundle: of everything in it. Of a block device: of all of it."""
    if path.is_block_device():
        with path.open("rb") as device:
            return device.seek(0, os.SEEK_END)
    if not path.is_dir():
        return path.stat().st_size
    return sum(
        os.stat(os.path.join(folder, name), follow_symlinks=False).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _partition(image: "Image", partition: "Partition") -> dict[str, Any]:
    facts: dict[str, Any] = {
        "index": partition.index,
        "type": partition.type,
        "name": partition.name,
        "start": partition.start,
        "length": partition.length,
        "identifier": partition.identifier,
        "content": None,
    }
    if not partition.may_hold_volume:
        return facts
    found = image.found(partition)
    facts |= {"content": found.kind, "wrapped": found.wrapped, "problem": found.problem}
    if image.mountable(partition):
        try:
            facts["volume"] = _volume(image.volume_on(partition).info)
        except DmgError as error:
            facts["problem"] = str(error)
    return facts


def _volume(info: "VolumeInfo") -> dict[str, Any]:
    facts: dict[str, Any] = info._asdict()
    facts["attributes"] = list(info.attributes)
    facts["warnings"] = list(info.warnings)
    facts["encodings"] = [bit for bit in range(64) if info.encodings >> bit & 1]
    return facts


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    shown = [*_container_lines(facts), "", *_map_lines(facts)]
    for partition in facts["partitions"]:
        if "volume" in partition:
            shown += ["", *_volume_lines(partition)]
    shown += [f"warning: {warning}" for warning in facts["warnings"]]
    if "outer" in facts:
        shown += ["", f"inside {facts['outer']['image']}:", *(f"  {line}".rstrip() for line in lines(facts["outer"]))]
    return shown


def _row(label: str, value: object) -> str:
    return f"{label:14}{value}"


def _container_lines(facts: dict[str, Any]) -> list[str]:
    container = facts["container"]
    shown = [_row("image", facts["image"])]
    kind = container["kind"]
    if "variant" in container:
        kind += f" ({container['variant']} image, tables in the {container['tables_in']})"
    shown.append(_row("container", kind))
    encryption = container.get("encryption")
    if encryption:
        shown.append(_row("encryption", ", ".join(f"{key} {value}" for key, value in encryption.items())))
    size = f"{human(facts['stored_size'])} stored, {human(facts['disk_size'])} disk"
    if facts["compression_ratio"]:
        size += f" (ratio {facts['compression_ratio']})"
    shown.append(_row("size", size))
    if "network" in facts:
        shown.append(_row("server's state", facts["network"]["version"]))
    if len(container["files"]) > 1:
        shown.append(_row("files", ", ".join(container["files"])))
    for name, tally in container.get("codecs", {}).items():
        amount = f"{tally['runs']} runs, {human(tally['expanded'])}"
        if tally["stored"]:
            amount += f" from {human(tally['stored'])}"
        shown.append(_row("codec", f"{name}: {amount}"))
    if "checksums" in container:
        present = [
            f"{name.replace('_', ' ')} {sum_['type']}" for name, sum_ in container["checksums"].items() if sum_
        ]
        tables = container["tables"]
        present.append(f"{sum(1 for table in tables if table['checksum'])} of {len(tables)} block tables")
        shown.append(_row("checksums", ", ".join(present)))
    if container.get("signature"):
        shown.append(_row("signature", "code signature present (not checked)"))
    shown += [_row(key.replace("_", " "), container[key]) for key in ("band_size", "bands") if key in container]
    netboot = container.get("netboot")
    if netboot:
        shown += [_row("netboot", f"{key} {value}") for key, value in netboot.items() if key != "files"]
        shown += [
            _row(
                "netboot file",
                f"{file['role']} {file['path']}: {'missing' if file['size'] is None else human(file['size'])}",
            )
            for file in netboot["files"]
        ]
    return shown


def _map_lines(facts: dict[str, Any]) -> list[str]:
    scheme = facts["map"]["scheme"]
    if scheme == "none":
        [whole] = facts["partitions"]
        content = f"no partition map; {whole['content'] or 'nothing'} on the whole disk"
        return [_row("map", content), *([_row("", whole["problem"])] if whole.get("problem") else [])]
    shown = [_row("map", f"{scheme}, blocks of {facts['map']['block_size']} bytes")]
    for one in facts["partitions"]:
        name = f' "{one["name"]}"' if one["name"] else ""
        where = f"{human(one['length'])} at {one['start']:#x}"
        content = one["content"] or "-"
        if one.get("wrapped"):
            content += " in an HFS wrapper"
        shown.append(_row(f"partition {one['index']}", f"{one['type']}{name}, {where}: {content}"))
        if one.get("problem"):
            shown.append(_row("", one["problem"]))
    return shown


def _journal(volume: dict[str, Any]) -> str:
    parts = [volume["journal"] or "none"]
    if volume["journal_detail"]:
        parts[0] += f": {volume['journal_detail']}"
    return "; ".join(parts if volume["clean"] else [*parts, "not unmounted cleanly"])


def _volume_lines(partition: dict[str, Any]) -> list[str]:
    volume = partition["volume"]
    sensitive = "case-sensitive" if volume["case_sensitive"] else "case-insensitive"
    used = volume["block_size"] * max(0, volume["total_blocks"] - volume["free_blocks"])
    size = volume["block_size"] * volume["total_blocks"]
    shown = [
        _row("volume", f'{volume["kind"]} "{volume["name"]}", {sensitive}'),
        _row("", f"{volume['files']} files, {volume['folders']} folders"),
        _row("", f"{human(used)} of {human(size)} used, blocks of {volume['block_size']} bytes"),
        _row("journal", _journal(volume)),
        _row("attributes", ", ".join(volume["attributes"]) or "-"),
        _row("encodings", ", ".join(encoding_name(bit) for bit in volume["encodings"]) or "-"),
        *(_row(key.replace("_", " "), date(volume[key])) for key in ("created", "modified", "checked", "backed_up")),
        _row("last mounted", volume["last_mounted_by"] or "-"),
        _row("id", volume["id"] or "-"),
    ]
    return shown + [f"warning: {warning}" for warning in volume["warnings"]]
