"""The ADC encoder: what it writes decodes to what it was given, and is worth writing."""

import random

from builders.packing import adc as plain_adc
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.codecs.adc import decode
from dmgfs.packing.adc import encode


def repetitive() -> st.SearchStrategy[bytes]:
    """Few different stretches again and again, of lengths around the format's limits."""
    stretch = st.one_of(
        st.binary(max_size=150), st.builds(lambda b, n: bytes([b]) * n, st.integers(0, 255), st.integers(0, 150))
    )
    parts = st.lists(stretch, min_size=1, max_size=6)
    return st.builds(
        lambda parts, order: b"".join(parts[i % len(parts)] for i in order), parts, st.lists(st.integers(0))
    )


@given(st.one_of(st.binary(max_size=3000), repetitive()))
def test_it_decodes_to_what_it_was(data: bytes) -> None:
    assert decode(encode(data), len(data)) == data


def test_matches_reach_as_far_as_the_window_and_no_further() -> None:
    noise = random.Random(1).randbytes(1 << 17)
    word = b"a word that is looked for, forty bytes.."
    for distance in (1023, 1024, 1025, 65535, 65536, 65537, 80000):
        gap = noise[: distance - len(word)].replace(b"a", b"b")
        data = word + gap + word
        packed = encode(data)
        assert decode(packed, len(data)) == data
        # The steps over the noise are long by then, so the word may be met in its middle.
        assert encode(word + word[:20]) < packed


def test_runs_of_one_byte_cost_three_for_67() -> None:
    assert len(encode(bytes(67 * 1000))) < 3100


def test_text_packs_as_well_as_plain_greed_finds() -> None:
    words = random.Random(2).choices([b"sector ", b"volume ", b"catalog ", b"extent ", b"journal "], k=4000)
    data = b"".join(words)
    assert len(encode(data)) < 1.3 * len(plain_adc(data))


def test_noise_grows_by_one_byte_in_128_only() -> None:
    noise = random.Random(3).randbytes(1 << 16)
    assert len(encode(noise)) <= len(noise) + len(noise) // 128 + 1
