"""URLs: told from paths, taken apart, shown without secrets."""

import pytest

from dmgfs.remote.address import cache_name, is_url, shown, split


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("https://host/image.dmg", True),
        ("s3://bucket/key", True),
        ("abfs+x.y-z://a/b", True),
        ("simplecache::https://host/image.dmg", True),
        ("image.dmg", False),
        ("/srv/a://b", False),
        ("outer.dmg//inner.dmg", False),
        ("1s://x", False),
    ],
)
def test_what_a_url_is(text: str, answer: bool) -> None:
    assert is_url(text) is answer


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://host/outer.dmg", ["https://host/outer.dmg"]),
        ("https://host/outer.dmg//a/inner.dmg", ["https://host/outer.dmg", "a/inner.dmg"]),
        ("s3://bucket/outer.dmg//inner.dmg//third", ["s3://bucket/outer.dmg", "inner.dmg", "third"]),
        ("file:///srv/outer.dmg//inner.dmg", ["file:///srv/outer.dmg", "inner.dmg"]),
        ("https://host/image.dmg?sign=a//b", ["https://host/image.dmg?sign=a//b"]),
        ("zip://image.dmg::https://host/all.zip", ["zip://image.dmg::https://host/all.zip"]),
    ],
)
def test_images_in_images(url: str, parts: list[str]) -> None:
    assert split(url) == parts


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://me:secret@host:8443/image.dmg?X-Amz-Signature=secret#secret", "https://host:8443/image.dmg"),
        ("https://me:se@cret@host/image.dmg", "https://host/image.dmg"),
        ("zip://a.dmg::https://me:secret@host/all.zip?secret", "zip://a.dmg::https://host/all.zip"),
        ("https://me:secret@host?secret", "https://host"),
        ("image?.dmg", "image?.dmg"),
    ],
)
def test_nothing_secret_is_shown(url: str, safe: str) -> None:
    assert shown(url) == safe


def test_the_cache_knows_an_object_by_what_it_is_not_by_who_asks() -> None:
    signed = "https://me:one@host/image.dmg?id=5&X-Amz-Signature=one&Expires=1"
    again = "https://me:two@host/image.dmg?id=5&X-Amz-Signature=two&Expires=2"
    assert cache_name(signed) == cache_name(again)
    assert cache_name(signed) != cache_name(again.replace("id=5", "id=6"))
    assert cache_name(signed) != cache_name(again.replace("me:", "you:"))
