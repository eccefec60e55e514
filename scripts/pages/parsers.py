"""The parser of the whole program, put together of its verbs, and what can be read off it."""

import argparse
import importlib
import re
from collections.abc import Iterator

from dmgfs.cli import VERBS, Parser, parser_of


def whole() -> argparse.ArgumentParser:
    """dmgfs with all verbs as sub-parsers."""
    parser = Parser(prog="dmgfs", description="mount compressed Apple disk images and live in them")
    parser.add_argument("-V", "--version", action="version", version="", help="show the version")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb")
    for verb in VERBS:
        summary = importlib.import_module(f"dmgfs.cli.{verb}").SUMMARY
        of_verb = verbs.add_parser(verb, help=summary, description=summary)
        importlib.import_module(f"dmgfs.cli.{verb}").configure(of_verb)
    return parser


def parts(verb: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(name, parser) of the verb and of its own verbs, if it has some."""
    parser = parser_of(verb)
    yield f"dmgfs {verb}", parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield f"dmgfs {verb} {name}", below


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def operands(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def value_of(action: argparse.Action) -> str:
    """How the value is called, "" for a switch."""
    if action.nargs == 0:
        return ""
    if action.metavar is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {
        "?": f"[{metavar}]",
        "*": f"[{metavar}...]",
        "+": f"{metavar}...",
        argparse.REMAINDER: f"[{metavar}...]",
    }.get(str(action.nargs), metavar)


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def words_of(action: argparse.Action) -> list[str]:
    """The words among which the value may be chosen, as far as its name tells: `nfc|nfd`, `none|ram[:SIZE]|FILE`."""
    if action.choices is not None:
        return [str(word) for word in action.choices]
    name = action.metavar if isinstance(action.metavar, str) and "|" in action.metavar else ""
    found = (re.match(r"[a-z][a-z0-9+-]*[=:]?", word) for word in re.sub(r"\[[^\]]*\]", "", name).split("|"))
    return [match[0] for match in found if match]
