"""Errors are values with a place. Parsers raise these and nothing else; the FUSE edge alone turns them into errno, the
CLI alone into exit codes (the numbers are sysexits', in one table in `dmgfs/cli`).

    DmgError
     ├─ NotAnImage          the file is not what the verb needs
     ├─ CorruptImage        damaged: layer, structure and offset are named
     │   └─ OutOfRange      a pointer leads outside the bytes that contain it
     ├─ Unsupported         sound, but a feature we do not have, by name
     ├─ WhichPartition      the request fits several partitions, or none
     ├─ WrongBootArgument   a word of the boot loader's makes no sense
     ├─ Unwritable          what is to be written does not fit into the format
     ├─ PassphraseNeeded    encrypted, and nobody gave a passphrase
     └─ WrongPassphrase     encrypted, and the passphrase does not open it
"""


class DmgError(Exception):
    """Base of everything the parsers raise. `str(error)` is one plain sentence fit for a user, without the image's name."""


class NotAnImage(DmgError):
    """The file is no disk image that this verb can use."""


class CorruptImage(DmgError):
    """A structure is damaged.

    layer: which parser speaks ("UDIF", "GPT", "HFS+ catalog" …). structure: what was being read ("block table 3: run
    17"). offset: bytes, in the coordinates of that layer, None where there is no single place. why: what was found and
    what would have been right.
    """

    def __init__(self, layer: str, structure: str, why: str, offset: int | None = None) -> None:
        self.layer = layer
        self.structure = structure
        self.why = why
        self.offset = offset
        place = "" if offset is None else f" at offset {offset:#x}"
        super().__init__(f"{layer}: {structure}{place}: {why}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.layer, self.structure, self.why, self.offset)


class OutOfRange(CorruptImage):
    """A read reaches outside the bytes that exist."""


class Unsupported(DmgError):
    """A feature that is recognised and not implemented. `feature` names it, `advice` says what to do instead."""

    def __init__(self, feature: str, advice: str = "") -> None:
        self.feature = feature
        self.advice = advice
        super().__init__(f"{feature} is not supported" + (f" ({advice})" if advice else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.feature, self.advice)


class WhichPartition(DmgError):
    """No single partition is meant: several could be, or none is called so. The message lists them."""


class WrongBootArgument(DmgError):
    """A word of the kernel's command line, or a root path, makes no sense; the message says what would."""


class PassphraseNeeded(DmgError):
    """The image is encrypted and no passphrase was given."""


class WrongPassphrase(DmgError):
    """No key of the image opens with the passphrase given."""


class Unwritable(DmgError):
    """What is to be written does not fit into the format: the message says what, and what to do. `places`: the objects,
    one sentence each; there may be more than those."""

    def __init__(self, why: str, places: "list[str] | None" = None) -> None:
        self.why = why
        self.places = places or []
        super().__init__(why)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.why, self.places)
