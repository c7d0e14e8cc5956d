"""The command's flags, and the plan that they make."""

from __future__ import annotations

import argparse
import secrets
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..connection import Connection, Misuse, add_connection_flags, address_of, connection_of
from . import amounts
from .amounts import Faults
from .comparison import Base, read_base
from .gates import Limits
from .mixing import mix_of
from .plan import Plan
from .profile import Piece, Profile, constant, profile
from .recording import Asked
from .verification import REMEMBERED_MAX

PROCESSES_MAX: Final = 64
CALLS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Asking:
    """All that was asked for on the command line."""

    plan: Plan
    limits: Limits
    base: Base | None
    tolerance: float
    verify: str | None
    json: str | None
    html: str | None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add all of them. They are read as text, so that every fault can be named at once."""
    add_connection_flags(parser)
    for title, flags in _FLAGS.items():
        group = parser.add_argument_group(title)
        for names, metavar, meaning in flags:
            group.add_argument(*names.split(), metavar=metavar, help=meaning.replace("%", "%%"))
    parser.add_argument(
        "--closed", action="store_true", help="closed loop: each caller waits for its answer"
    )
    report = parser.add_argument_group("reports")
    report.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="JSON, in place of the text, or to a file"
    )
    report.add_argument("--html", metavar="FILE", help="one HTML file with plots, which needs no network")


_FLAGS: Final = {
    "how much": (
        ("--rate", "R", "calls a second (default: 50)"),
        ("--duration", "TIME", "for how long, without the warm-up (default: 10s)"),
        (
            "--profile",
            "SHAPES",
            "in place of both: hold:50/10s,ramp:10..200/30s,steps:100..500/5x6s,spike:50..500/3s",
        ),
        ("--arrivals", "KIND", "constant or poisson (default: constant)"),
        ("-c --concurrency", "N", "callers of a closed loop (default: 10)"),
        ("--warm-up", "TIME", "left out of all figures (default: 1s)"),
        (
            "--max-in-flight",
            "N",
            "an arrival that finds so many calls under way is dropped (default: 1000)",
        ),
        ("--late-after", "TIME", "a start so long after the intended one is late (default: 50ms)"),
        ("--deadline", "TIME", "of every call (default: 10s)"),
        ("--processes", "N", "that make the load together (default: 1)"),
        ("--seed", "TEXT", "of arrivals and mix (default: drawn, and reported)"),
    ),
    "the mix (shares in per cent)": (
        ("--mix", "WEIGHTS", "SyncLinkage and BindAccount (default: sync=100)"),
        ("--encrypted-target", "HOST:PORT", "a second gateway, one that encrypts"),
        ("--encrypted", "SHARE", "of SyncLinkage that goes there (default: 50)"),
        ("--duplicates", "SHARE", "repeat an earlier request, id and all"),
        ("--out-of-order", "SHARE", "tell of an earlier linkage with an older biz_time"),
        ("--cancelled", "SHARE", "are cancelled within 20 ms"),
        ("--short-deadline", "SHARE", "have a deadline that is too short"),
        ("--short-deadline-of", "TIME", "that deadline (default: 50ms)"),
        ("--faults", "SHARES", "magic user ids of the sandbox: USER_NOT_EXIST=1,DELAY_200=0.5"),
    ),
    "gates": (
        ("--max-p99", "TIME", "p99 of successes, from the intended start: 50ms"),
        ("--max-error-rate", "SHARE", "errors and dropped calls: 0.1%"),
        ("--compare", "FILE", "an earlier --json report, than which nothing may be worse"),
        ("--compare-tolerance", "SHARE", "by which p99 may be worse all the same (default: 10)"),
        ("--verify", "URL", "of the sandbox, whose memory must fit what callers were told"),
    ),
}


def asking_of(args: argparse.Namespace) -> Asking:
    """Read the flags; raise Misuse, which names every fault."""
    faults = Faults()
    connection = Connection("", None)
    try:
        connection = connection_of(args)
    except Misuse as error:
        faults.found += str(error).splitlines()
    asking = Asking(
        _plan(args, connection, faults),
        Limits(
            faults.read("--max-p99", amounts.limit, args.max_p99, 1.0) if args.max_p99 else None,
            faults.read("--max-error-rate", amounts.share, args.max_error_rate, 0.0)
            if args.max_error_rate
            else None,
        ),
        faults.read("--compare", read_base, args.compare, None) if args.compare else None,
        faults.read("--compare-tolerance", amounts.percentage, args.compare_tolerance or "10", 0.1),
        faults.read("--verify", _url, args.verify, None) if args.verify else None,
        args.json,
        args.html,
    )
    faults.note(
        asking.verify is not None and _ids(asking.plan) > REMEMBERED_MAX,
        f"--verify: the sandbox remembers {REMEMBERED_MAX} request ids of an RPC, and this run has more",
    )
    one_file = args.json and args.html and Path(args.json).resolve() == Path(args.html).resolve()
    faults.note(bool(one_file), "--json and --html: one file cannot hold both")
    if faults.found:
        raise Misuse("\n".join(faults.found))
    return asking


def _plan(args: argparse.Namespace, connection: Connection, faults: Faults) -> Plan:
    warm_up = faults.read("--warm-up", amounts.duration, args.warm_up or "1s", 0.0)
    shape = _profile(args, faults)
    _check_loop(args, faults)
    processes = faults.read("--processes", amounts.whole(1, PROCESSES_MAX), args.processes or "1", 1)
    callers = faults.read("--concurrency", amounts.whole(1, CALLS_MAX), args.concurrency or "10", 10)
    room = faults.read("--max-in-flight", amounts.whole(1, CALLS_MAX), args.max_in_flight or "1000", 1000)
    for name, number in (
        ("--concurrency", callers if args.closed else PROCESSES_MAX),
        ("--max-in-flight", room),
    ):
        faults.note(
            number < processes, f"{name}: there must be one at least for each of --processes {processes}"
        )
    arrivals = args.arrivals or "constant"
    faults.note(
        arrivals not in {"constant", "poisson"}, f"--arrivals: {arrivals!r} is neither constant nor poisson"
    )
    return Plan(
        target=connection.target,
        tls=connection.tls,
        encrypted_target=faults.read("--encrypted-target", address_of, args.encrypted_target, None)
        if args.encrypted_target
        else None,
        run=secrets.token_hex(4),
        seed=args.seed or secrets.token_hex(4),
        mix=mix_of(args, faults),
        duration=shape.lasts,
        warm_up=warm_up,
        profile=None if args.closed else _warmed_up(shape, warm_up),
        poisson=arrivals == "poisson",
        callers=callers,
        max_in_flight=room,
        deadline=faults.read("--deadline", amounts.positive_duration, args.deadline or "10s", 10.0),
        late_after=faults.read("--late-after", amounts.positive_duration, args.late_after or "50ms", 0.05),
        processes=processes,
        remember=args.verify is not None,
    )


def _ids(plan: Plan) -> float:
    """Return how many request ids the busier RPC will have; a closed loop cannot know."""
    calls = plan.profile.calls if plan.profile else 0.0
    own = 1 - plan.mix.asked.get(Asked.DUPLICATE, 0.0)
    return calls * max(plan.mix.sync, 1 - plan.mix.sync) * own


def _check_loop(args: argparse.Namespace, faults: Faults) -> None:
    for flag in ("rate", "profile", "arrivals", "max_in_flight"):
        given = args.closed and getattr(args, flag) is not None
        faults.note(given, f"--{flag.replace('_', '-')} has no meaning with --closed")
    faults.note(
        args.concurrency is not None and not args.closed, "--concurrency has no meaning without --closed"
    )
    for flag in ("rate", "duration"):
        given = args.profile is not None and getattr(args, flag) is not None
        faults.note(given, f"--{flag} has no meaning with --profile, which says it")


def _profile(args: argparse.Namespace, faults: Faults) -> Profile:
    if args.profile is not None:
        return faults.read("--profile", profile, args.profile, constant(50, 10))
    seconds = faults.read("--duration", amounts.positive_duration, args.duration or "10s", 10.0)
    return constant(faults.read("--rate", amounts.positive_rate, args.rate or "50", 50.0), seconds)


def _warmed_up(shape: Profile, warm_up: float) -> Profile:
    """Put the warm-up before it, at the rate with which it begins."""
    first = shape.pieces[0].begins
    return Profile((Piece(first, first, warm_up), *shape.pieces)) if warm_up else shape


def _url(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ValueError(f"{text!r} is not the sandbox's URL, such as http://127.0.0.1:8089")
    return f"{parts.scheme}://{parts.netloc}"
