"""Text as man(7) wants it: nothing in it is taken for a request, and all of it is ASCII."""

import re

_SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "`": "\\(ga", "~": "\\(ti"}
WIDTH = 78


def escape(text: str) -> str:
    """For the middle of a line."""
    return "".join(_SPECIAL.get(letter, letter) if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in text)


def bold(text: str) -> str:
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escape(text)}\\fR"


def paragraph(text: str) -> list[str]:
    """The text in lines; words within single backquotes become bold."""
    words = [
        bold(piece) if number % 2 else escape(piece) for number, piece in enumerate(re.split(r"`([^`]*)`", text))
    ]
    return folded("".join(words))


def folded(marked: str) -> list[str]:
    """Marked text broken at spaces; no line begins with what would be a request."""
    lines: list[str] = []
    line = ""
    for word in marked.split():
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return [f"\\&{line}" if line.startswith((".", "'")) else line for line in lines if line]


def example(text: str) -> list[str]:
    """Lines as they stand."""
    lines = [escape(line) for line in text.strip("\n").splitlines()]
    return [".RS", ".nf", *(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines), ".fi", ".RE"]
