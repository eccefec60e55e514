"""python scripts/pages FOLDER: writes manual pages and completions below FOLDER, where share/ belongs."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]


def write(folder: Path) -> list[str]:
    """The places, relative to `folder`."""
    from pages.completions import completions
    from pages.manual import manual_pages

    texts = {**manual_pages(), **completions()}
    for place, text in texts.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return sorted(texts)


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
