"""`python -m snapspec.conformance`: the command `snapspec`."""

import sys

from snapspec.conformance.cli import main

sys.exit(main())
