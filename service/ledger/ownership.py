"""Whose a new file is: what root makes beside a ledger belongs to the ledger's owner.

An operator may run a ledger command as root. The gateway runs as another user, and could not read the
marker, or open the ledger, that the command left.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_to_owner_of(path: Path, descriptor: int) -> None:
    """Give a file that root has just made to the owner of a path.

    Where the path is missing, or is root's itself, that is the owner of its directory.
    """
    if os.geteuid() != 0:
        return
    with suppress(OSError):  # a container may lack the capability; then root is its only user
        owner = path.stat() if path.exists() else path.parent.stat()
        owner = owner if owner.st_uid else path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
