"""A capture of the gateway as a message to diagnose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clients.alipayhk.captured import CaptureUnreadable, open_capture
from clients.alipayhk.wire.keys import KeyFileError, load_private_key

from .exchange import Exchange, Unusable, exchange_of


def exchange_of_capture(members: Mapping[str, Any], key_file: Path | None, message: str | None) -> Exchange:
    """Open a capture, and return its message in question, or the one that is asked for; raise Unusable."""
    if key_file is None:
        raise Unusable("FILE is a sealed capture: name its recipient's private key with --capture-key.")
    try:
        capture = open_capture(members, load_private_key(key_file))
    except KeyFileError as error:
        raise Unusable(f"--capture-key {error}.") from None
    except CaptureUnreadable as error:
        raise Unusable(str(error)) from None
    refused_with = capture.facts.get("refused_with", "")
    messages = {each["message"]: exchange_of(dict(each)) for each in capture.exchanges}
    wanted = messages[message or ("request" if refused_with else "response")]
    refused_with = refused_with if wanted.message == "request" else ""
    return replace(wanted, response_headers=messages["response"].headers, refused_with=refused_with)
