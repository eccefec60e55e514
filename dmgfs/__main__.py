"""`python -m dmgfs` is the command `dmgfs`."""

import sys

from dmgfs.cli import main

sys.exit(main())
