"""Ground for tests of stores in files."""

import pytest

import overlay.file
import overlay.recovery
import overlay.space


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments and frequent checkpoints, so that short runs meet every case."""
    monkeypatch.setattr(overlay.file, "SEGMENT_SLOTS", 2)
    monkeypatch.setattr(overlay.file, "_FIRST_SIZE", 6 * 4096)
    monkeypatch.setattr(overlay.file, "_CHECKPOINT_MIN", 8192)
    monkeypatch.setattr(overlay.space, "_GROW_MIN", 4)
    monkeypatch.setattr(overlay.recovery, "_DUMP_RECORD", 300)
