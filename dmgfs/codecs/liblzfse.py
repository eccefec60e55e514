"""Apple's reference decoder, called with a bounded buffer.

The `lzfse` package carries liblzfse, but its `decompress` sizes the output by what the stream claims, decodes again from
the start whenever that was too little, and grows without bound on damaged input. Its shared object exports the library's
own `lzfse_decode_buffer`, which writes into a buffer of our size and releases the GIL; that is what is called here.
`AVAILABLE` is False where the symbol cannot be reached; then the callers use their own decoders.
"""

import ctypes
from collections.abc import Callable
from importlib.util import find_spec


def _find() -> Callable[..., int] | None:
    spec = find_spec("lzfse")
    if spec is None or spec.origin is None:
        return None
    try:
        function = ctypes.CDLL(spec.origin).lzfse_decode_buffer
    except (OSError, AttributeError):  # a build that hides the library's symbols
        return None
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    return function


_decode_buffer = _find()
AVAILABLE = _decode_buffer is not None


def decode(stream: bytes, expected: int) -> memoryview | None:
    """The LZFSE stream's bytes if they are exactly `expected`, else None. Only call it when AVAILABLE.

    The buffer has one byte more than wanted: the library says "full" for both "fits exactly" and "there was more".
    """
    assert _decode_buffer is not None
    out = bytearray(expected + 1)
    target = ctypes.c_char.from_buffer(
        out
    )  # holds the buffer in place; an array type for each length would cost more
    written = _decode_buffer(ctypes.addressof(target), len(out), stream, len(stream), None)
    return memoryview(out)[:expected] if written == expected else None
