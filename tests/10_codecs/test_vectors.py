"""Known answers: every decoder against streams and outputs that other implementations agreed on (vectors.json)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dmgfs.codecs import decoder
from dmgfs.codecs.lzfse import decode_slowly
from dmgfs.errors import CorruptImage

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
DECODERS = [(vector, decoder(vector["codec"])) for vector in VECTORS]
DECODERS += [(vector, decode_slowly) for vector in VECTORS if vector["codec"] == "lzfse"]


def name(value: object) -> str | None:
    return f"{value['codec']}-{value['input'][:24]}" if isinstance(value, dict) else None


@pytest.mark.parametrize(("vector", "decode"), DECODERS, ids=name)
def test_vector(vector: dict[str, Any], decode: Any) -> None:
    data, expected = bytes.fromhex(vector["input"]), vector["output_len"]
    if vector.get("error"):
        with pytest.raises(CorruptImage):
            decode(data, expected)
        return
    out = decode(data, expected)
    assert hashlib.sha256(out).hexdigest() == vector["output_sha256"]
    if vector["output_hex"] is not None:
        assert bytes(out).hex() == vector["output_hex"]
    # LZVN alone has to ignore what follows the expected bytes, so it cannot notice that there was more.
    for wrong in (expected - 1, expected + 1):
        if wrong > 0 and (vector["codec"], wrong) != ("lzvn", expected - 1):
            with pytest.raises(CorruptImage):
                decode(data, wrong)
