"""Images that are not on this machine: an object behind a URL (https, s3, whatever fsspec knows) as a byte source.

Rules that hold here:
- nothing is known of disk images, FUSE or trio. fsspec and what it needs are imported when a URL is opened, never before;
- what was opened is pinned: its size and its version (ETag, or the time of its last change). Every answer of the server is
  compared with that before a byte of it is taken. An object that changed is an error, never a mixture of two;
- every wait ends. A server that is gone is an I/O error in bounded time, and forgotten as soon as it answers again;
- URLs are shown without passwords and without what follows a question mark: signatures stand there.
"""

from dmgfs.remote.settings import Settings
from dmgfs.remote.source import RemoteSource

__all__ = ["RemoteSource", "Settings", "open_remote"]


def open_remote(url: str, settings: Settings) -> RemoteSource:
    """The object behind the URL, its beginning fetched. Raises Unsupported (fsspec or a driver is missing, the server
    answers no range requests), NotAnImage (a folder), FileNotFoundError, PermissionError, OSError (not to be reached)."""
    from dmgfs.remote.cachefolder import CacheFolder
    from dmgfs.remote.fetcher import Fetcher
    from dmgfs.remote.opening import transport_for

    folder = CacheFolder.open(settings.folder, settings.cache_bytes)
    fetcher = Fetcher(transport_for(url, settings.timeout), settings.timeout)
    try:
        return RemoteSource(fetcher, folder)
    except BaseException:
        fetcher.close()
        if folder is not None:
            folder.close()
        raise
