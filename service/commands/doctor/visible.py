"""Show text with its invisible characters, and the differences between two texts."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Final

TOKENS_MAX: Final = 3_000
CONTEXT: Final = 24
_TOKEN: Final = re.compile(r"\w+|\s|.", re.DOTALL)
_NAMES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def decoded(content: bytes) -> str:
    """Return content as text, with escapes for bytes that are not UTF-8."""
    return content.decode("utf-8", "backslashreplace")


def visible(text: str) -> str:
    """Write invisible characters as escapes, and a space at the end of a line as a middle dot."""
    shown = re.sub(r" (?=[\r\n]|\Z)", "·", text)
    return "".join(_shown(character) + ("\n" if character == "\n" else "") for character in shown)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return _NAMES.get(character) or character.encode("unicode_escape").decode()


def differences(expected: str, signed: str) -> str:
    """Return both texts as one: [-only in the content to sign-], {+only in the signed content+}."""
    before, after = _TOKEN.findall(expected), _TOKEN.findall(signed)
    if max(len(before), len(after)) > TOKENS_MAX:
        return _ends(expected, signed)
    parts = []
    for tag, start, end, other_start, other_end in SequenceMatcher(
        None, before, after, autojunk=False
    ).get_opcodes():
        same, new = "".join(before[start:end]), "".join(after[other_start:other_end])
        if tag == "equal":
            parts.append(_shortened(same))
        else:
            parts.append(
                (f"[-{_escaped(same)}-]" if same else "") + (f"{{+{_escaped(new)}+}}" if new else "")
            )
    return "".join(parts)


def _ends(expected: str, signed: str) -> str:
    """Return the place of the first difference of two long texts."""
    pairs = zip(expected, signed, strict=False)
    at = next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(signed))
    )
    shown = (_escaped(text[at : at + CONTEXT]) for text in (expected, signed))
    return f"from character {at + 1}: " + "[-{}-]{{+{}+}}".format(*shown) + " …"


def _shortened(text: str) -> str:
    shown = _escaped(text)
    return shown if len(shown) <= 3 * CONTEXT else f"{shown[:CONTEXT]} … {shown[-CONTEXT:]}"


def _escaped(text: str) -> str:
    return "".join(map(_shown, text))
