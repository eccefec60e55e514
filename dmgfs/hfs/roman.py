"""Names on HFS standard: Mac OS Roman, and the order that the Mac's ROM (`RelString`, ignoring case but not accents)
gives them in the catalog.

The order is not ASCII's and not Unicode's: accented letters, quotation marks and the grave accent stand with the plain
character they resemble; capitals equal their small letters, but only where the ROM of 1984 had both (`é` equals `É`, `ê`
and `Ê` are different names, and `Ê` stands far away). Everything not named here keeps its place by code.
"""

from unicodedata import normalize

ENCODING = "mac_roman"

# In front of the colon, the character whose place is taken; behind it, in order, what stands there. Characters that are
# not separated by a space are equal.
_PLACES = """
A: Aa àÀ Ää ãÃ Åå Ææ ` á â ª
C: Cc Çç
E: Ee Éé è ê ë
I: Ii í ì î ï
N: Nn Ññ
O: Oo Öö õÕ Øø Œœ ó ò ô º
S: Ss ß
U: Uu Üü ú ù û
Y: Yy ÿ
": " “ ” « »
': ' ‘ ’
"""


def _ranks() -> bytes:
    """256 bytes: the rank of each character among the classes of equal ones."""
    groups = {chr(code): chr(code) + chr(code).lower() for code in range(ord("A"), ord("Z") + 1)}
    places = {letter: [group] for letter, group in groups.items()}
    places[" "] = [" \N{NO-BREAK SPACE}"]
    for line in _PLACES.split("\n")[1:-1]:
        places[line[0]] = line[3:].split(" ")
    moved = {
        character
        for place, classes in places.items()
        for group in classes
        for character in group
        if character != place
    }
    ranks = bytearray(256)
    rank = 0
    for code in range(256):
        character = bytes((code,)).decode(ENCODING)
        if character in moved:
            continue
        for group in places.get(character, [character]):
            for equal in group:
                ranks[equal.encode(ENCODING)[0]] = rank
            rank += 1
    return bytes(ranks)


_RANKS = _ranks()
_NO_RANK = b"\xff"
assert max(_RANKS) < _NO_RANK[0]


def decode(name: bytes) -> str:
    """The name as text. Every byte has a character, so nothing is lost."""
    return name.decode(ENCODING)


def encode(name: str) -> bytes | None:
    """The name as the volume would hold it, typed composed or decomposed; None if it has no such form. Length is not
    checked."""
    try:
        return normalize("NFC", name).encode(ENCODING)
    except UnicodeEncodeError:
        return None


def key(name: bytes) -> bytes:
    """Sorts as the catalog does, and is equal for equal names."""
    return name.translate(_RANKS)


def fold(name: str) -> bytes:
    """As `key`, for any text: names that the volume could not hold are equal to themselves only."""
    encoded = encode(name)
    if encoded is None:
        return _NO_RANK + normalize("NFC", name).encode("utf-8", "surrogatepass")
    return key(encoded)
