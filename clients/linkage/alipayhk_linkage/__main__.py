"""Run `alipayhk-client` as `python -m alipayhk_linkage`."""

import sys

from .cli import main

sys.exit(main())
