"""For hatchling: a wheel gets the manual pages and completions of the parsers that are in it, and the systemd units. So
they cannot be out of date, and `pip install` and `pipx install` put them where they belong."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PagesHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        folder = Path(self.directory) / "pages"
        sys.path[:0] = [str(root / "scripts"), str(root)]
        from pages.__main__ import write

        for place in write(folder):
            build_data["shared_data"][str(folder / place)] = place
        for unit in sorted((root / "share" / "systemd").iterdir()):
            build_data["shared_data"][str(unit)] = f"share/doc/dmgfs/systemd/{unit.name}"
