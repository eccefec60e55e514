"""Encrypted images: real ones against what independent readers found inside, built ones of every kind, and damaged
headers, which must end in an error of ours before anybody is asked to wait."""

import hashlib
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, Keys, encrypt_v1, encrypt_v2, header_v2, passphrase_blob, trailer_v1
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.container import encrypted, open_container, open_source
from dmgfs.container.blockcipher import BlockCipher, DecryptedSource
from dmgfs.errors import (
    CorruptImage,
    DmgError,
    NotAnImage,
    OutOfRange,
    PassphraseNeeded,
    Unsupported,
    WrongPassphrase,
)
from dmgfs.source import Cold, MemorySource, forbid_blocking

DISK = hashlib.shake_128(b"disk").digest(300_000)


def opened(image: bytes, passphrase: bytes = PASSPHRASE) -> DecryptedSource:
    return encrypted.open_encrypted(MemorySource(image), lambda: passphrase, ChunkCache(1 << 20))


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "size", "sha256"),
    [
        # The disk inside as qemu-img and libmodi read it from the plaintext; 7-Zip verified its checksums.
        (
            "citruz_dmgwiz__input_aes256.dmg",
            10510336,
            "1407509ff44696aab011815d84951ad2c53cb7345a71d9803b73817c2d2d83cf",
        ),
        (
            "sparkle-project_Sparkle__SparkleTestCodeSignApp.enc.dmg",
            9437184,
            "c45a5fd694b67ef971fd3543a5c27384b223b3a24d6510135e60a9da11dbf2c5",
        ),
    ],
)
def test_real_images_hold_the_disk_that_others_found(corpus_image, corpus_index, name, size, sha256) -> None:
    password = next(entry["password"] for entry in corpus_index if entry["name"] == name)
    container = open_container(corpus_image(name), passphrase=password.encode, cache=ChunkCache(1 << 24))
    try:
        assert container.kind == "UDIF"
        assert container.details["encryption"]["cipher"] == "AES-256"
        assert container.disk.size == size
        assert hashlib.sha256(container.disk.read(0, size)).hexdigest() == sha256
    finally:
        container.close()


@pytest.mark.corpus
def test_real_aes128_image_without_its_passphrase(corpus_image) -> None:
    image = corpus_image("JetBrains_format-ripper__test-encrypted-aes128.dmg")
    with pytest.raises(PassphraseNeeded):
        open_container(image, cache=ChunkCache(1 << 20))
    with pytest.raises(WrongPassphrase):
        open_container(image, passphrase=lambda: b"not this", cache=ChunkCache(1 << 20))


@pytest.mark.corpus
@pytest.mark.parametrize("make", [encrypt_v1, encrypt_v2])
def test_a_real_udif_encrypted_here_holds_the_same_disk(corpus_image, make: Callable[..., bytes]) -> None:
    plain = corpus_image("citruz_dmgwiz__input_zlib.dmg").read_bytes()
    disks = []
    for image in (plain, make(plain, bits=256)):
        container = open_source(MemorySource(image), passphrase=lambda: PASSPHRASE, cache=ChunkCache(1 << 22))
        assert container.kind == "UDIF"
        disks.append(hashlib.sha256(container.disk.read(0, container.disk.size)).digest())
    assert disks[0] == disks[1]


def test_block_cipher_agrees_with_openssl_called_once_per_block(tmp_path: Path) -> None:
    keys = Keys(256, 512)
    cipher = BlockCipher(keys.aes, keys.mac, 512)
    ciphertext = hashlib.shake_128(b"ciphertext").digest(512 * 3)
    command = ["openssl", "dgst", "-sha1", "-mac", "HMAC", "-macopt", f"hexkey:{keys.mac.hex()}", "-binary"]
    expected = b""
    for index in range(3):
        mac = subprocess.run(command, input=struct.pack(">I", 70_000 + index), capture_output=True, check=True)
        aes = ["openssl", "enc", "-d", "-aes-256-cbc", "-nopad", "-K", keys.aes.hex(), "-iv", mac.stdout[:16].hex()]
        block = ciphertext[512 * index : 512 * index + 512]
        expected += subprocess.run(aes, input=block, capture_output=True, check=True).stdout
    assert cipher.decrypt(70_000, ciphertext) == expected


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("block", [512, 4096])
@pytest.mark.parametrize("make", [encrypt_v1, encrypt_v2])
def test_both_versions_key_sizes_and_block_sizes(make: Callable[..., bytes], bits: int, block: int) -> None:
    source = opened(make(DISK, bits=bits, block=block))
    assert source.size == len(DISK)
    assert source.read(0, len(DISK)) == DISK
    assert source.read(block - 1, 2) == DISK[block - 1 : block + 1]
    assert source.read(len(DISK) - 1, 1) == DISK[-1:]
    assert source.details["cipher"] == f"AES-{bits}"
    assert source.details["block_size"] == block


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 5000), st.sampled_from([512, 1024]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_range_reads_as_the_plaintext(offset: int, length: int, size: int, block: int, first: bool) -> None:
    plain = DISK[:size]
    source = opened((encrypt_v1 if first else encrypt_v2)(plain, block=block))
    if offset + length > size:
        with pytest.raises(OutOfRange):
            source.read(offset, length)
    else:
        assert source.read(offset, length) == plain[offset : offset + length]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_thread_that_must_not_wait_gets_cold_and_then_the_same_bytes(data: st.DataObject) -> None:
    source = opened(encrypt_v2(DISK))
    offset = data.draw(st.integers(0, len(DISK)))
    length = data.draw(st.integers(0, len(DISK) - offset))
    loads = []
    forbid_blocking()
    try:
        if length:
            with pytest.raises(Cold) as cold:
                source.read(offset, length)
            loads = list(cold.value.loads)
    finally:
        forbid_blocking(False)
    assert list(source.cold(offset, length)) == loads
    for load in loads:
        load.run()
    forbid_blocking()
    try:
        assert source.cold(offset, length) == ()
        assert source.read(offset, length) == DISK[offset : offset + length]
    finally:
        forbid_blocking(False)


def test_reading_in_a_thread_that_may_wait_leaves_the_cache_alone() -> None:
    cache: ChunkCache[bytes] = ChunkCache(1 << 20)
    source = encrypted.open_encrypted(MemorySource(encrypt_v2(DISK)), lambda: PASSPHRASE, cache)
    source.read(0, len(DISK))
    assert cache.statistics().bytes == 0


@pytest.mark.parametrize("make", [encrypt_v1, encrypt_v2])
def test_wrong_passphrase_and_none(make: Callable[..., bytes]) -> None:
    image = make(DISK[:5000])
    with pytest.raises(WrongPassphrase):
        opened(image, b"incorrect horse")
    with pytest.raises(WrongPassphrase):
        opened(image, b"")
    with pytest.raises(PassphraseNeeded):
        encrypted.open_encrypted(MemorySource(image), None, ChunkCache(1 << 20))


def test_the_passphrase_is_asked_for_once_and_not_told_to_anybody() -> None:
    asked = []
    keys = Keys()
    blobs = [(1, passphrase_blob(keys, b"one")), (1, passphrase_blob(keys, b"two"))]

    def passphrase() -> bytes:
        asked.append(1)
        return b"three-secret"

    with pytest.raises(WrongPassphrase) as error:
        encrypted.open_encrypted(MemorySource(header_v2(keys, 512, blobs) + bytes(512)), passphrase, ChunkCache(1))
    assert asked == [1]
    assert "three" not in str(error.value)


@pytest.mark.parametrize("passphrase", [b"one", b"two", "Пароль".encode()])
def test_every_passphrase_key_opens_the_image(passphrase: bytes) -> None:
    keys = Keys(256)
    records = [(2, b"certificate"), *((1, passphrase_blob(keys, one)) for one in (b"one", b"two", "Пароль".encode()))]
    assert opened(header_v2(keys, 5000, records) + keys.encrypt(DISK[:5000]), passphrase).read(0, 5000) == DISK[:5000]


def test_key_wrapped_with_aes() -> None:
    source = opened(encrypt_v2(DISK, wrap="aes", bits=256))
    assert source.read(1000, 5000) == DISK[1000:6000]


def test_a_key_of_a_kind_we_lack_does_not_hide_one_that_opens() -> None:
    keys = Keys()
    strange = passphrase_blob(keys, PASSPHRASE, kdf=104)
    good = passphrase_blob(keys, PASSPHRASE)
    assert (
        opened(header_v2(keys, 512, [(1, strange), (1, good)]) + keys.encrypt(DISK[:512])).read(0, 512) == DISK[:512]
    )
    with pytest.raises(Unsupported, match="key derivation 104"):
        opened(header_v2(keys, 512, [(1, strange)]) + keys.encrypt(DISK[:512]))


def test_only_a_certificate() -> None:
    keys = Keys()
    with pytest.raises(Unsupported, match="certificate"):
        opened(header_v2(keys, 512, [(2, b"x" * 616)]) + bytes(512))


def test_last_block_cut_off_behind_its_data() -> None:
    image = encrypt_v2(DISK[:1000], block=512)
    source = opened(image[: 8192 + 1008])  # the smallest multiple of 16 that holds 1000 bytes
    assert source.read(0, 1000) == DISK[:1000]
    assert source.read(990, 10) == DISK[990:1000]


def test_truncated_images_say_so() -> None:
    with pytest.raises(CorruptImage, match="truncated"):
        opened(encrypt_v2(DISK)[:-1000])
    keys = Keys()
    with pytest.raises(CorruptImage, match="truncated"):
        opened(keys.encrypt(DISK[:4096]) + trailer_v1(keys, 8192))


def test_token_of_a_bundle_is_named() -> None:
    keys = Keys()
    for token in (header_v2(keys, 0, [(1, passphrase_blob(keys, PASSPHRASE))]), trailer_v1(keys, 0)):
        with pytest.raises(NotAnImage, match="sparse bundle"):
            opened(token)


def test_image_inside_is_opened_too() -> None:
    container = open_source(
        MemorySource(encrypt_v2(DISK[:4096])), passphrase=lambda: PASSPHRASE, cache=ChunkCache(1 << 20)
    )
    assert container.kind == "raw"
    assert container.disk.read(0, 4096) == DISK[:4096]


DAMAGED_HEADERS = {
    "version": 3,
    "iv_length": 8,
    "mode": 6,
    "algorithm": 0x11,
    "bits": 64,
    "iv_algorithm": 1,
    "iv_bits": 0xFFFFFFFF,
    "count": 0xFFFFFFFF,
    "data_offset": 1 << 63,
    "claimed_length": 1 << 63,
    "item_offset": 1 << 63,
    "item_length": 10,
}


@pytest.mark.parametrize(("field", "value"), [*DAMAGED_HEADERS.items(), ("count", 0), ("data_offset", 0x50)])
def test_damaged_header_fields(field: str, value: int) -> None:
    keys = Keys()
    header = header_v2(keys, 512, [(1, passphrase_blob(keys, PASSPHRASE))], **{field: value})
    with pytest.raises((CorruptImage, Unsupported)):
        opened(header + bytes(512))


@pytest.mark.parametrize("block", [0, 1, 511, 513, 1 << 21, 0xFFFFFFFF])
def test_impossible_block_sizes(block: int) -> None:
    keys = Keys()
    with pytest.raises(CorruptImage, match="block size"):
        opened(header_v2(keys, 512, [(1, passphrase_blob(keys, PASSPHRASE))], block=block) + bytes(512))
    with pytest.raises(CorruptImage, match="block size"):
        opened(bytes(512) + trailer_v1(keys, 512, block=block))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kdf", 1),
        ("claimed_iterations", 0),
        ("claimed_iterations", 0xFFFFFFFF),
        ("salt_length", 0),
        ("salt_length", 33),
        ("iv_length", 16),
        ("claimed_bits", 0),
        ("claimed_bits", 0xFFFFFFC0),
        ("algorithm", 0x12),
        ("padding", 0),
        ("mode", 1),
        ("blob_length", 0),
        ("blob_length", 47),
        ("blob_length", 0xFFFFFFF8),
    ],
)
def test_damaged_passphrase_keys(field: str, value: int) -> None:
    keys = Keys()
    with pytest.raises((CorruptImage, Unsupported)):
        opened(header_v2(keys, 512, [(1, passphrase_blob(keys, PASSPHRASE, **{field: value}))]) + bytes(512))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("wrap", 0x80000001),
        ("wrap_bits", 128),
        ("wrap_mode", 5),
        ("padding", 1),
        ("kdf", 0),
        ("claimed_iterations", 0),
        ("claimed_iterations", 0xFFFFFFFF),
        ("salt_length", 0xFFFFFFFF),
        ("iv_length", 0),
        ("mode", 0),
        ("algorithm", 0),
        ("bits", 192),
        ("key_length", 257),
        ("mac_length", 0),
        ("iv_bits", 128),
        ("claimed_length", (1 << 64) - 1),
    ],
)
def test_damaged_trailer_fields(field: str, value: int) -> None:
    keys = Keys()
    with pytest.raises((CorruptImage, Unsupported)):
        opened(keys.encrypt(DISK[:512]) + trailer_v1(keys, 512, **{field: value}))


def test_the_work_of_all_keys_together_is_bounded() -> None:
    keys = Keys()
    each = encrypted.MOST_ITERATIONS // 2 + 1
    blobs = [(1, passphrase_blob(keys, PASSPHRASE, claimed_iterations=each))] * 2
    asked = []
    with pytest.raises(Unsupported, match=r"PBKDF2.*--slow-key"):
        open_source(
            MemorySource(header_v2(keys, 512, blobs) + bytes(512)),
            passphrase=lambda: asked.append(1) or PASSPHRASE,
            cache=ChunkCache(1 << 16),
        )
    assert not asked


@pytest.mark.parametrize("make", [encrypt_v1, encrypt_v2])
def test_flipped_bits_and_cuts_end_in_our_errors(make: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypted, "MOST_ITERATIONS", 1000)  # a flipped count must not make the test wait
    image = make(DISK[:600], block=512)
    header = range(0x60, 0x60 + 180) if make is encrypt_v2 else range(len(image) - 1276, len(image))
    places = [*header, *range(100)]
    for place in places:
        damaged = bytearray(image)
        damaged[place] ^= 1 << place % 8
        read_or_refuse(bytes(damaged))
    for length in range(0, len(image), 97):
        read_or_refuse(image[:length])


def read_or_refuse(image: bytes) -> None:
    source = MemorySource(image)
    try:
        if encrypted.recognise(source):
            plain = encrypted.open_encrypted(source, lambda: PASSPHRASE, ChunkCache(1 << 20))
            plain.read(0, min(plain.size, 4096))
    except DmgError:
        pass


@given(st.binary(max_size=400), st.sampled_from([encrypt_v1, encrypt_v2]), st.integers(0, 2100))
@settings(max_examples=80, deadline=None)
def test_noise_over_the_header_ends_in_our_errors(noise: bytes, make: Callable[..., bytes], place: int) -> None:
    image = bytearray(make(DISK[:600], block=512))
    start = place if make is encrypt_v2 else max(len(image) - 1276 + place % 1268, 0)
    image[start : start + len(noise)] = noise[: len(image) - start]
    limit, encrypted.MOST_ITERATIONS = encrypted.MOST_ITERATIONS, 1000
    try:
        read_or_refuse(bytes(image))
    finally:
        encrypted.MOST_ITERATIONS = limit
