"""`--verify full`: every checksum of the image is computed before it is mounted."""

import logging
import time
from typing import TYPE_CHECKING

from dmgfs.container.checksum import Verdict
from dmgfs.errors import CorruptImage

if TYPE_CHECKING:
    from dmgfs.image import Image

log = logging.getLogger(__name__)


def verify(image: "Image") -> None:
    """Raises CorruptImage for the first checksum that is wrong, OSError. An image without any is none the worse."""
    name = ascii(image.path)[1:-1]
    if image.container.verify is None:
        log.warning("%s: a %s carries no checksums: nothing is verified", name, image.container.kind)
        return
    begin = time.monotonic()
    right = 0
    for step in image.container.verify():
        if not isinstance(step, Verdict):
            continue
        if step.ok is False:
            why = step.why or f"{step.actual} computed, {step.expected} recorded"
            raise CorruptImage(image.container.kind, f"{step.algorithm} of {step.what}", why)
        right += step.ok is True
        if step.ok is None:
            log.warning("%s: %s of %s: %s", name, step.algorithm, step.what, step.why)
    log.info("%s: %d checksums are right, after %.1f s", name, right, time.monotonic() - begin)
