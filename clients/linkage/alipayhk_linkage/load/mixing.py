"""The flags of the mix: the kinds of calls and their shares."""

from __future__ import annotations

import argparse
import re
from typing import Final

from . import amounts
from .amounts import Faults
from .recording import Variant
from .requests import Mix

_FAULT: Final = re.compile(r"[A-Z0-9_]{1,40}")
_NAMES: Final = {"sync": "sync", "bind": "bind"}


def mix_of(args: argparse.Namespace, faults: Faults) -> Mix:
    """Parse the flags of the mix; add their faults to `faults`."""
    weights = faults.read("--mix", _weights, args.mix or "sync=100", {"sync": 1.0})
    faults.note(
        args.encrypted is not None and not args.encrypted_target, "--encrypted needs --encrypted-target"
    )
    encrypted = faults.read("--encrypted", amounts.share, args.encrypted or "50", 0.5)
    variants = {
        variant: faults.read(flag, amounts.share, getattr(args, flag[2:].replace("-", "_")) or "0", 0.0)
        for flag, variant in (
            ("--duplicates", Variant.DUPLICATE),
            ("--out-of-order", Variant.OUT_OF_ORDER),
            ("--cancelled", Variant.CANCELLED),
            ("--short-deadline", Variant.SHORT_DEADLINE),
        )
    }
    no_faults: dict[str, float] = {}
    sandbox_faults = faults.read("--faults", _faults, args.faults, no_faults) if args.faults else no_faults
    faults.note(
        sum(variants.values()) + sum(sandbox_faults.values()) > 1 + 1e-9,
        "--duplicates, --out-of-order, --cancelled, --short-deadline, --faults: more than 100 % in total",
    )
    return Mix(
        sync=weights.get("sync", 0.0) / sum(weights.values()),
        encrypted=encrypted if args.encrypted_target else 0.0,
        variants=variants,
        faults=sandbox_faults,
        short_deadline=faults.read(
            "--short-deadline-of", amounts.positive_duration, args.short_deadline_of or "50ms", 0.05
        ),
    )


def _weights(text: str) -> dict[str, float]:
    weights = amounts.named(text, amounts.rate)
    if unknown := sorted(weights.keys() - _NAMES):
        raise ValueError(f"{', '.join(unknown)}: the names must be sync and bind")
    if not sum(weights.values()):
        raise ValueError("at least one weight must be more than 0")
    return weights


def _faults(text: str) -> dict[str, float]:
    shares = amounts.named(text, amounts.share)
    if odd := [name for name in shares if not _FAULT.fullmatch(name)]:
        raise ValueError(
            f"{', '.join(map(repr, odd))}: not a name of a sandbox fault, such as USER_NOT_EXIST"
        )
    return shares
