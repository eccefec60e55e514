"""Decoders: compressed bytes in, exactly the expected number of bytes out.

Rules that hold in every file of this package:
- `decode(data, expected)` returns exactly `expected` bytes or raises CorruptImage; there is no third outcome;
- memory is bounded by `expected` and `len(data)`, never by what the stream claims;
- nothing is kept between calls, so any number of threads may decode at once;
- input after the end of the stream is padding and ignored, unless the file says why not.
A decoder is imported when it is first asked for. Whoever serves a mount asks when the image is opened, so that nothing is
imported later (a live root may have lost the files by then).
"""

from collections.abc import Callable
from importlib import import_module

from dmgfs.source import Buffer

Decoder = Callable[[Buffer, int], Buffer]

_MODULES = {
    "adc": "adc",
    "zlib": "inflate",
    "bzip2": "bzip2",
    "lzfse": "lzfse",
    "lzvn": "lzvn",
    "lzbitmap": "lzbitmap",
    "xz": "xz",
}
CODECS = tuple(_MODULES)


def decoder(codec: str) -> Decoder:
    """The decoder of one of CODECS. Raises KeyError for another name, ImportError if its library is not installed."""
    decode: Decoder = import_module(f"dmgfs.codecs.{_MODULES[codec]}").decode
    return decode
