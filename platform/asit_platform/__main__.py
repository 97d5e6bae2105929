"""`python -m asit_platform` is `asit`."""

import sys

from asit_platform.cli import main

sys.exit(main())
