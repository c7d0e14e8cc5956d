"""Run the gateway's command line as `python -m service`."""

import sys

from .commands.cli import main

sys.exit(main())
