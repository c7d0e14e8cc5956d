"""Reading TOML: the settings, who may call, and more result codes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise ValueError with what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a byte order mark
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not TOML") from None
    except ValueError:
        raise ValueError("cannot be read: no file can have this name") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The place alone: the rest may quote what stands there.
        place = re.search(r" \((at line \d+, column \d+|at end of document)\)$", str(error))
        raise ValueError(f"is not TOML{place[0] if place else ''}") from None
    except ValueError:  # of a whole number that is too long, too, which is none of its own errors
        raise ValueError("is not TOML") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
