"""Give the files that root creates next to a ledger to the ledger's owner.

An operator may run a ledger command as root. The gateway runs as another user, and could not read a marker
or open a ledger that belongs to root.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_to_owner_of(path: Path, descriptor: int) -> None:
    """Give a file that root has just created to the owner of a path.

    If the path is missing or belongs to root, its directory's owner gets the file.
    """
    if os.geteuid() != 0:
        return
    with suppress(OSError):  # a container may lack the capability; root is then its only user
        owner = path.stat() if path.exists() else path.parent.stat()
        owner = owner if owner.st_uid else path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
