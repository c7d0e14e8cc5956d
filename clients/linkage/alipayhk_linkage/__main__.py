"""`python -m alipayhk_linkage` is `alipayhk-client`."""

import sys

from .cli import main

sys.exit(main())
