"""A settings file with every setting, its meaning and its default."""

from __future__ import annotations

import json
import re
from textwrap import wrap
from typing import Final

from .declaration import REQUIRED, declared
from .settings import Settings

_HEAD: Final = """\
# Settings of alipayhk-gateway, for `alipayhk-gateway serve --config FILE`.
# Fill in the required ones. A line with # shows a default: remove the # to change it. An empty text counts
# as absent. A name in capitals is another setting. ALIPAYHK_<NAME> in the environment overrides a line.
"""
_WIDTH: Final = 108
_BARE: Final = re.compile(r"true|false|\d+")
"""Values that TOML writes without quotation marks."""


def example() -> str:
    """Return the file as TOML; until the required settings are filled in, `config check` lists them."""
    blocks = [_HEAD]
    for name, field in declared(Settings):
        default = field.metadata["default"]
        required = default is REQUIRED
        meaning = wrap(field.metadata["meaning"] + " Required." * required, _WIDTH - 2)
        line = f"{name} = {_value('' if required or default is None else default)}"
        blocks.append("".join(f"# {each}\n" for each in meaning) + f"{'' if required else '# '}{line}\n")
    return "\n".join(blocks)


def _value(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
