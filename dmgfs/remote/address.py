"""URLs of images: told from paths, taken apart, and shown without what is secret in them.

Rule: standard library only, and nothing is opened; paths of this machine pass through here when a verb begins.
"""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CHAINED = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*(?:://[^:]*)?::)+[A-Za-z][A-Za-z0-9+.-]*://")
_SIGNING = re.compile(
    r"(?:x-(?:amz|goog)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|sig|se|st|sp|sv|sr|skoid|"
    r"sktid|skt|ske|sks|skv)\Z",
    re.IGNORECASE,
)
"""Words of a query that say who may read, not what."""


def is_url(text: str) -> bool:
    """Whether it is a URL, or several chained with `::` as fsspec has them."""
    return _SCHEME.match(text) is not None or _CHAINED.match(text) is not None


def split(url: str) -> list[str]:
    """`https://host/outer.dmg//inner.dmg` as the outer URL and the paths of the images inside. A query, and what is chained
    with `::`, stays whole."""
    if "::" in url or "?" in url:
        return [url]
    scheme, _, rest = url.partition("://")
    slashes = "/" if rest.startswith("/") else ""  # file:///path
    outer, *inner = rest[len(slashes) :].split("//")
    return [f"{scheme}://{slashes}{outer}", *(part for part in inner if part.strip("/"))]


def shown(text: str) -> str:
    """For people and logs: a URL without password, query and fragment; anything else as it is."""
    if not is_url(text):
        return text
    return "::".join(_without_secrets(part) for part in text.split("::"))


def cache_name(url: str) -> str:
    """What the cache knows the object by: the URL without password and signature, which may be others the next time."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    query = [(key, value) for key, value in parse_qsl(parts.query, True) if not _SIGNING.match(key)]
    return urlunsplit((parts.scheme, user.partition(":")[0] + at + host, parts.path, urlencode(query), ""))


def _without_secrets(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
