"""Names for the bits and numbers that a Macintosh volume keeps and Linux has no place for: BSD flags, Finder flags, text
encodings."""

FLAGS = (
    (0x1, "nodump"),
    (0x2, "uchg"),
    (0x4, "uappnd"),
    (0x8, "opaque"),
    (0x20, "compressed"),
    (0x40, "tracked"),
    (0x80, "datavault"),
    (0x8000, "hidden"),
    (0x10000, "arch"),
    (0x20000, "schg"),
    (0x40000, "sappnd"),
    (0x80000, "restricted"),
    (0x100000, "sunlnk"),
)
"""BSD st_flags by the names that chflags(1) uses."""

FINDER_FLAGS = (
    (0x8000, "alias"),
    (0x4000, "invisible"),
    (0x2000, "bundle"),
    (0x1000, "name locked"),
    (0x0800, "stationery"),
    (0x0400, "custom icon"),
    (0x0040, "shared"),
)

_ENCODINGS = (
    *("Roman", "Japanese", "Traditional Chinese", "Korean", "Arabic", "Hebrew", "Greek", "Cyrillic", ""),
    *("Devanagari", "Gurmukhi", "Gujarati", "Oriya", "Bengali", "Tamil", "Telugu", "Kannada", "Malayalam"),
    *("Sinhalese", "Burmese", "Khmer", "Thai", "Lao", "Georgian", "Armenian", "Simplified Chinese", "Tibetan"),
    *("Mongolian", "Ethiopic", "Central European", "Vietnamese", "Extended Arabic", "", "Symbol", "Dingbats"),
    *("Turkish", "Croatian", "Icelandic", "Romanian"),
)
_LATE_ENCODINGS = {48: "Ukrainian", 49: "Farsi", 140: "Farsi", 152: "Ukrainian"}
"""As numbers in a record, and as bits of the volume header, where there are only 64 (TN1150 "Text Encodings")."""


def flag_names(flags: int, names: tuple[tuple[int, str], ...]) -> list[str]:
    """The set bits by name, those without one as a hexadecimal number at the end."""
    known = [name for bit, name in names if flags & bit]
    rest = flags & ~sum(bit for bit, _ in names)
    return known + ([f"{rest:#x}"] if rest else [])


def encoding_name(number: int) -> str:
    """ "Japanese"; the number where it has no name."""
    name = _ENCODINGS[number] if 0 <= number < len(_ENCODINGS) else _LATE_ENCODINGS.get(number, "")
    return name or str(number)
