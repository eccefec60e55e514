"""What can be wrong with a shadow file. `str(error)` is one plain sentence without the file's name; which errno or exit
code that is, is the caller's business.

    ShadowError
     ├─ NotAShadow      the file is something else and is left alone
     ├─ ShadowInUse     somebody else has it open
     ├─ ShadowBase      it belongs to another image
     └─ ShadowDamaged   it is one of ours and cannot be read
"""

from collections.abc import Mapping

LAYERS = "layers"
"""Where the base of a shadow says which others are below it (see `overlay.superblock`)."""


class ShadowError(Exception):
    """Base of all of them. path: of the file, where the one who opened it knew."""

    path: str | None = None


class NotAShadow(ShadowError):
    """The file has other contents; it is never overwritten."""


class ShadowInUse(ShadowError):
    """Another process holds the lock."""


class ShadowBase(ShadowError):
    """The shadow was made over another image. differences: what is recorded → (in the file, of the image given)."""

    def __init__(self, differences: Mapping[str, tuple[object, object]]) -> None:
        self.differences = differences
        if differences.keys() == {LAYERS}:
            there, here = (_named_layers(value) for value in differences[LAYERS])
            super().__init__(f"it was made over {there}, and here it would be over {here}")
            return
        theirs = sorted(key for key, (there, here) in differences.items() if here is None)
        ours = sorted(key for key, (there, here) in differences.items() if there is None)
        if theirs and ours:
            what = f"it records {', '.join(theirs)}, and here there are {', '.join(ours)}"
            super().__init__(f"it was made over something of another kind: {what}")
            return
        named = ", ".join(
            f"{key} {there!r} instead of {here!r}" for key, (there, here) in sorted(differences.items())
        )
        super().__init__(f"it belongs to another image: {named}")


def _named_layers(fingerprints: object) -> str:
    """What a shadow is over, in words."""
    known = str(fingerprints or "").split()
    if not known:
        return "the image itself"
    return f"the read-only layer{'s' if len(known) > 1 else ''} {', '.join(known)}"


class ShadowDamaged(ShadowError):
    """A structure that must be sound is not."""
