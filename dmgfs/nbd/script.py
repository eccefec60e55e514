"""What nbdkit loads. It runs in the Python inside nbdkit, which knows nothing of the environment that dmgfs lives in.

Rules that hold here:
- the names that nbdkit looks for are those of `dmgfs.nbd.server`; errors of callbacks are one line in the log;
- threads take turns often: beside one that decodes in Python (ADC), a read of what is in memory would wait for several of
  the usual turns.
"""

import json
import os
import sys

sys.path[:0] = json.loads(os.environ["DMGFS_SERVE_PATH"])
sys.tracebacklimit = 0
sys.setswitchinterval(0.0005)

from dmgfs.nbd.server import *  # noqa: E402, F403
