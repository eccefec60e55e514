"""What becomes of a daemon's end: an exit code and one line. Imported in the process that serves."""

import logging
from collections.abc import Callable

from dmgfs.cli import code_of
from dmgfs.cli.network import shown
from dmgfs.cli.report import say
from dmgfs.errors import DmgError
from overlay.errors import ShadowError

SOFTWARE, OS_ERROR = 70, 71


def outcome(serve: Callable[[], None], mountpoint: str, image: str, shadow: str) -> int:
    """Serves to the end. shadow: what a ShadowError that names no file is about. Raises DmgError, OSError, MemoryError,
    also those that trio wraps."""
    from dmgfs.fuse.session import MountFailed

    try:
        serve()
    except MountFailed as error:
        return say(f"{mountpoint}: {error}", OS_ERROR)
    except ShadowError as error:
        return say(f"{error.path or shadow}: {error}", code_of(error))
    except (DmgError, OSError, MemoryError):
        raise
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):  # from trio; its own text says nothing
            cause = cause.exceptions[0]
        if isinstance(cause, (DmgError, OSError, MemoryError)):
            raise cause from None
        logging.getLogger(__name__).critical("the daemon failed", exc_info=True)
        return say(f"{shown(image)}: internal error: {type(cause).__name__}: {cause}", SOFTWARE)
    return 0
