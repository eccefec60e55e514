"""The manual pages dmgfs.1 and mount.dmgfs.8: what the parsers know, and around it what they do not.

Own code, because argparse-manpage knows neither exit codes nor words of -o, and mandoc and groff complain about its pages.
"""

import argparse
import datetime
import os

from dmgfs import __version__
from dmgfs.cli import VERBS, helper, parser_of
from dmgfs.cli.options import FSTAB, KERNEL, KERNEL_VALUES, OURS
from pages.parsers import help_of, operands, options, parts, value_of
from pages.roff import bold, escape, example, folded, italic, paragraph

EXIT_STATUS = {
    0: "done",
    64: "wrong usage, or the choice of a partition is yours to make",
    65: "the image is damaged; the line names layer, structure and offset",
    66: "no such file, or not a disk image",
    69: "recognised, but not supported",
    70: "a bug of ours",
    71: "the system refused: no FUSE, no memory",
    73: "the output exists or cannot be made; the shadow file is something else, and left alone",
    74: "input or output failed",
    75: "in use: the shadow file, or the mount",
    76: "the shadow file is damaged",
    77: "passphrase needed or wrong, or permission denied",
    78: "the shadow file belongs to another image",
}

MOUNT_STATUS = {
    0: "mounted; with `nofail` also if the image is not there",
    1: "wrong usage",
    2: "the system refused: no FUSE, no memory",
    4: "a bug of ours",
    8: "interrupted",
    32: "not mounted: no such image, damaged, a wrong passphrase",
}


def manual_pages() -> dict[str, str]:
    """Text by place."""
    return {"share/man/man1/dmgfs.1": dmgfs(), "share/man/man8/mount.dmgfs.8": mount_dmgfs()}


def dmgfs() -> str:
    lines = _head("DMGFS", 1, "dmgfs", "mount compressed Apple disk images and live in them")
    lines += [".SH SYNOPSIS", f"{bold('dmgfs')} {italic('VERB')} ..."]
    lines += [
        ".br",
        f"{bold('dmgfs')} {italic('IMAGE')} {italic('MOUNTPOINT')} [{bold('-o')} {italic('OPTION')},...]",
    ]
    lines += [".SH DESCRIPTION"]
    lines += paragraph(
        "Mounts a disk image (DMG) as an ordinary directory tree, without converting it. With a shadow the tree is "
        "writable: every write goes to the shadow, in memory or in a file, and the image never changes. Without a verb it "
        "is `mount`. The verbs that only read need no FUSE."
    )
    lines += [".SH VERBS"]
    for verb in VERBS:
        for name, parser in parts(verb):
            lines += _verb(name, parser)
    lines += [".SH EXIT STATUS", *_table(EXIT_STATUS)]
    lines += [
        ".SH SIGNALS",
        *paragraph(
            "SIGINT, SIGTERM and SIGHUP unmount; a mount that is busy goes out of sight and is served until its last user "
            "is gone. SIGUSR1 writes a line of figures to the log. With `-o liveroot` only unmounting ends the daemon."
        ),
    ]
    lines += [".SH ENVIRONMENT", ".TP", bold("SHELL"), *paragraph("what `dmgfs enter` runs without a command")]
    lines += [".TP", f"{bold('NOTIFY_SOCKET')}, {bold('WATCHDOG_USEC')}"]
    lines += paragraph("in the foreground, the service manager that is told about the mount, see sd_notify(3)")
    lines += [
        ".SH EXAMPLES",
        *example(
            """
dmgfs mount image.dmg /live --shadow ram
dmgfs enter /live
dmgfs unmount /live
"""
        ),
    ]
    lines += _see_also("mount.dmgfs(8), fusermount3(1), mount(8), umount(8), chroot(1)")
    return "\n".join(lines) + "\n"


def mount_dmgfs() -> str:
    parser = helper.mount_parser()
    lines = _head("MOUNT.DMGFS", 8, "mount.dmgfs", "mount compressed Apple disk images with mount(8)")
    lines += [".SH SYNOPSIS", *_bold_words("mount -t dmgfs", "IMAGE MOUNTPOINT", "[-o OPTION,...]")]
    lines += [".br", *_usage("mount.dmgfs", parser)]
    lines += [
        ".SH DESCRIPTION",
        *paragraph(
            "What mount(8) runs for file systems of the type `dmgfs`, on the command line, in fstab(5) and in "
            "systemd.mount(5). It returns when the mount answers. Without a shadow the mount is read-only, and says so "
            "unless `ro` was asked for."
        ),
    ]
    lines += [".SH OPTIONS", *_described(parser, options(parser))]
    lines += [
        ".SH WORDS OF -o",
        *paragraph(
            "A comma within a value is written `\\,` or within double quotes, a space `\\040`, a backslash `\\\\`. An "
            "unknown word is refused by its name. Those of dmgfs are the options of `dmgfs mount`, see dmgfs(1):"
        ),
    ]
    of_mount = parser_of("mount")
    for action in options(of_mount):
        name = next((word[2:] for word in action.option_strings if word.startswith("--")), "")
        if name in OURS:
            value = value_of(action)
            lines += [
                ".TP",
                bold(name) + (f"={italic(value)}" if value else ""),
                *paragraph(help_of(of_mount, action)),
            ]
    lines += [
        ".PP",
        *paragraph("Those of the kernel and of FUSE:"),
        *_list(sorted(KERNEL | {f"{w}=" for w in KERNEL_VALUES})),
    ]
    lines += [".PP", *paragraph("Those of mount(8) and fstab(5), which mean nothing to dmgfs:")]
    lines += _list([*sorted(FSTAB), "comment=", "x-*", "X-*"])
    lines += [
        ".PP",
        *paragraph(
            "`remount` changes `ro`, `rw`, `exec`, `dev`, `suid`, `sync` and `noatime` of a mount that stands, nothing "
            "else. It becomes writable only if it has a shadow. `nosuid` and `nodev` hold unless `suid` and `dev` are said."
        ),
    ]
    lines += [".SH EXIT STATUS", *_table(MOUNT_STATUS)]
    lines += [
        ".SH FILES",
        ".TP",
        italic("/etc/fstab"),
        *paragraph("for example"),
        *example(
            r"""
/srv/image.dmg  /live  dmgfs  shadow=ram:50%,nofail,x-systemd.automount  0 0
/srv/tiger.dmg  /old   dmgfs  noauto,user,ro                             0 0
"""
        ),
    ]
    lines += _see_also("dmgfs(1), mount(8), fstab(5), systemd.mount(5), autofs(5)")
    return "\n".join(lines) + "\n"


def _head(title: str, section: int, name: str, what: str) -> list[str]:
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    day = datetime.datetime.fromtimestamp(moment, datetime.UTC).date() if moment else datetime.date.today()
    return [
        f'.TH {title} {section} "{day:%Y-%m-%d}" "dmgfs {__version__}"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(what)}",
    ]


def _verb(name: str, parser: argparse.ArgumentParser) -> list[str]:
    description = (parser.description or "").replace("%%", "%")
    lines = [
        f".SS {escape(name)}",
        *_usage(name, parser),
        ".PP",
        *paragraph(description[:1].upper() + description[1:] + "."),
    ]
    about = [
        action for action in operands(parser) if action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    return [*lines, *_described(parser, [*about, *options(parser)])]


def _usage(name: str, parser: argparse.ArgumentParser) -> list[str]:
    words = [bold(name), f"[{italic('OPTION')}...]"] if options(parser) else [bold(name)]
    for action in operands(parser):
        value = "VERB ..." if isinstance(action, argparse._SubParsersAction) else value_of(action)
        words.append(italic(value))
    return folded(" ".join(words))


def _described(parser: argparse.ArgumentParser, actions: list[argparse.Action]) -> list[str]:
    lines: list[str] = []
    for action in actions:
        value = value_of(action)
        if action.option_strings:
            signs = ", ".join(map(bold, action.option_strings))
            joint = "=" if action.option_strings[-1].startswith("--") else " "
            signs += f"{joint if value else ''}{italic(value) if value else ''}"
        else:
            signs = italic(value)
        lines += [".TP", signs, *paragraph(help_of(parser, action))]
    return lines


def _table(rows: dict[int, str]) -> list[str]:
    return [line for number, text in rows.items() for line in (".TP", bold(str(number)), *paragraph(text))]


def _list(words: list[str]) -> list[str]:
    return folded(", ".join(map(bold, words)) + ".")


def _bold_words(program: str, operands: str, rest: str) -> list[str]:
    return folded(f"{bold(program)} {italic(operands)} {escape(rest)}")


def _see_also(pages: str) -> list[str]:
    words = []
    for page in pages.split(", "):
        name, _, section = page.partition("(")
        words.append(f"{bold(name)}({section}")
    return [".SH SEE ALSO", *folded(", ".join(words))]
