"""Completions for bash, zsh and fish: shtab writes them from the parser, told which values are files."""

import argparse
import re
from typing import Any

import shtab

from pages.parsers import whole, words_of

PLACES = {
    "bash": "share/bash-completion/completions/dmgfs",
    "zsh": "share/zsh/site-functions/_dmgfs",
    "fish": "share/fish/vendor_completions.d/dmgfs.fish",
}

_DIRECTORIES = {"MOUNTPOINT", "DIR", "DIRECTORY", "FOLDER"}
_FILES = re.compile(r"\b(FILE|IMAGE|OUT|SOURCE|OUTPUT)\b")


def completions() -> dict[str, str]:
    """Text by place."""
    return {place: _written(shell) for shell, place in PLACES.items()}


def _written(shell: str) -> str:
    parser = whole()
    functions: dict[str, str] = {}
    _mark(parser, shell, functions)
    text = shtab.complete(parser, shell=shell, preamble={shell: "\n".join(functions.values())})
    return re.sub(
        r"^(# AUTOMATICALLY GENERATED)[^\n]*(\n#[^\n]*)*", r"\1 from dmgfs's parser", text, flags=re.MULTILINE
    )


def _mark(parser: argparse.ArgumentParser, shell: str, functions: dict[str, str]) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _mark(below, shell, functions)
            continue
        if action.nargs == 0:
            continue
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        words = words_of(action)
        marked: Any = action
        marked.metavar = re.sub(r"\[[^]]*\]|:", "", name)  # a colon means something to zsh
        if _FILES.search(name) and words:
            marked.complete = {shell: _either(shell, words, functions)}
        elif _FILES.search(name):
            marked.complete = shtab.FILE
        elif name in _DIRECTORIES:
            marked.complete = shtab.DIRECTORY
        elif words:
            action.choices = words


def _either(shell: str, words: list[str], functions: dict[str, str]) -> str:
    """What offers these words and files. `functions` gets what has to be said before."""
    name = "_dmgfs_files_" + re.sub(r"\W", "", "_".join(words))
    said = " ".join(words)
    if shell == "bash":
        functions[name] = f'{name}() {{\n  compgen -W "{said}" -- "$1"\n  compgen -f -- "$1"\n}}'
    elif shell == "zsh":
        functions[name] = f"{name}() {{\n  _alternative 'words:word:({said})' 'files:file:_files'\n}}"
    else:
        return f"(string split ' ' '{said}'; __fish_complete_path (commandline -ct))"
    return name
