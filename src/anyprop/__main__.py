"""The command line as `python -m anyprop`."""

import sys

from .cli import main

sys.exit(main())
