"""Read TOML files: settings, callers and result codes."""

from __future__ import annotations

import re
import tomllib
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from clients.alipayhk.regular_file import open_regular


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise ValueError with the reason if it cannot be read."""
    try:
        # Windows editors write a byte order mark first.
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not TOML") from None
    except ValueError:
        raise ValueError("cannot be read: no file can have this name") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Report kind and position only: the message can quote the file, which may contain secrets.
        place = re.search(r" \((at line \d+, column \d+|at end of document)\)$", str(error))
        is_repeated = str(error).startswith(("Cannot ", "Duplicate "))
        fault = "names a key or a table twice" if is_repeated else "is not TOML"
        raise ValueError(f"{fault}{place[0] if place else ''}") from None
    except ValueError:  # also raised for an integer of too many digits, which is not a TOMLDecodeError
        raise ValueError("is not TOML") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
