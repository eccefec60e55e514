"""Which transport reads a URL: HTTP and S3 have one of their own, because their answers can be checked in the same request
that brings the bytes; for any other file system of fsspec's there is a general one.

Rule: fsspec is configured as ever, by its own environment (FSSPEC_…) and files, and that of the driver (AWS_…, netrc).
"""

from collections.abc import Callable
from typing import Any

from dmgfs.errors import NotAnImage, Unsupported
from dmgfs.remote.address import cache_name, shown
from dmgfs.remote.transport import Transport

_NEEDED = "`pip install 'dmgfs[network]'` brings what http, https and s3 need"


def transport_for(url: str, timeout: float) -> Transport:
    """Raises Unsupported (fsspec or the driver is not installed), NotAnImage (there is no such scheme)."""
    try:
        from dmgfs.remote.thread import network_loop

        network_loop()
    except ImportError:
        raise Unsupported("reading images over a network without fsspec", _NEEDED) from None
    scheme = url.partition("://")[0].lower()
    try:
        if scheme in ("http", "https"):
            from dmgfs.remote.web import Web

            return Web(_file_system(url, _of_web()), url, shown(url), cache_name(url))
        if scheme in ("s3", "s3a"):
            from dmgfs.remote.objects import Objects, settings

            return Objects(_file_system(url, settings(timeout)), url, shown(url), cache_name(url))
        from dmgfs.remote.anything import Anything

        return Anything(lambda: _opened(url, {}), shown(url), shown(url))
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise Unsupported(f"reading {scheme}:// without its driver", f"{reason}; {_NEEDED}") from None
    except ValueError as error:
        raise NotAnImage(f"not a URL that can be read: {_words(error, url)}") from None


def _of_web() -> dict[str, Any]:
    """Proxies and netrc count, as for every program. What fsspec's own configuration says goes before."""
    from fsspec.config import conf

    told: dict[str, Any] = conf.get("https", {}) or conf.get("http", {})
    return {"client_kwargs": {"trust_env": True, **told.get("client_kwargs", {})}}


def _file_system(url: str, options: dict[str, Any]) -> Any:
    return _opened(url, options)[0]


def _opened(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """A file system of its own: instances that others share would outlive us, with their connections and listings."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    return system, path


def _words(error: Exception, url: str) -> str:
    return str(error).replace(url, shown(url))


Opener = Callable[[], tuple[Any, str]]
"""Makes a file system and the path in it."""
