"""The flags of the mix: which calls, and in which shares."""

from __future__ import annotations

import argparse
import re
from typing import Final

from . import amounts
from .amounts import Faults
from .recording import Asked
from .requests import Mix

_FAULT: Final = re.compile(r"[A-Z0-9_]{1,40}")
_NAMES: Final = {"sync": "sync", "bind": "bind"}


def mix_of(args: argparse.Namespace, faults: Faults) -> Mix:
    """Read the flags of the mix; note their faults."""
    weights = faults.read("--mix", _weights, args.mix or "sync=100", {"sync": 1.0})
    faults.note(
        args.encrypted is not None and not args.encrypted_target, "--encrypted takes --encrypted-target"
    )
    given = faults.read("--encrypted", amounts.share, args.encrypted or "50", 0.5)
    asked = {
        asked: faults.read(flag, amounts.share, getattr(args, flag[2:].replace("-", "_")) or "0", 0.0)
        for flag, asked in (
            ("--duplicates", Asked.DUPLICATE),
            ("--out-of-order", Asked.OUT_OF_ORDER),
            ("--cancelled", Asked.CANCELLED),
            ("--short-deadline", Asked.SHORT_DEADLINE),
        )
    }
    nothing: dict[str, float] = {}
    provoked = faults.read("--faults", _faults, args.faults, nothing) if args.faults else nothing
    faults.note(
        sum(asked.values()) + sum(provoked.values()) > 1 + 1e-9,
        "--duplicates, --out-of-order, --cancelled, --short-deadline and --faults are over 100 % together",
    )
    return Mix(
        sync=weights.get("sync", 0.0) / sum(weights.values()),
        encrypted=given if args.encrypted_target else 0.0,
        asked=asked,
        faults=provoked,
        short_deadline=faults.read(
            "--short-deadline-of", amounts.positive_duration, args.short_deadline_of or "50ms", 0.05
        ),
    )


def _weights(text: str) -> dict[str, float]:
    weights = amounts.named(text, amounts.rate)
    if unknown := sorted(weights.keys() - _NAMES):
        raise ValueError(f"{', '.join(unknown)}: only sync and bind can be mixed")
    if not sum(weights.values()):
        raise ValueError("one weight at least must be more than 0")
    return weights


def _faults(text: str) -> dict[str, float]:
    shares = amounts.named(text, amounts.share)
    if odd := [name for name in shares if not _FAULT.fullmatch(name)]:
        raise ValueError(
            f"{', '.join(map(repr, odd))}: not a fault of the sandbox, which are like USER_NOT_EXIST"
        )
    return shares
