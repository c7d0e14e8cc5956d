"""The command's flags, and the plan of the run that they give."""

from __future__ import annotations

import argparse
import secrets
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..connection import Connection, UsageError, add_connection_flags, address_of, connection_of
from . import amounts
from .amounts import Faults
from .comparison import Base, read_base
from .gates import Limits
from .mixing import mix_of
from .plan import Plan
from .profile import Piece, Profile, constant, profile
from .recording import Variant
from .verification import REMEMBERED_MAX

PROCESSES_MAX: Final = 64
CALLS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed command line."""

    plan: Plan
    limits: Limits
    base: Base | None
    tolerance: float
    verify: str | None
    json: str | None
    html: str | None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags. argparse reads them as text, so that `options_of` can name all faults in one error."""
    add_connection_flags(parser)
    for title, flags in _FLAGS.items():
        group = parser.add_argument_group(title)
        for names, metavar, meaning in flags:
            group.add_argument(*names.split(), metavar=metavar, help=meaning.replace("%", "%%"))
    parser.add_argument(
        "--closed", action="store_true", help="closed loop: each caller waits for its response"
    )
    report = parser.add_argument_group("reports")
    report.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="print JSON instead of text, or write it to FILE",
    )
    report.add_argument("--html", metavar="FILE", help="write one HTML file with plots, readable offline")


_FLAGS: Final = {
    "load": (
        ("--rate", "R", "calls per second (default: 50)"),
        ("--duration", "TIME", "duration of the run, without the warm-up (default: 10s)"),
        (
            "--profile",
            "SHAPES",
            (
                "the rate over time, in place of --rate and --duration:"
                " hold:50/10s,ramp:10..200/30s,steps:100..500/5x6s,spike:50..500/3s"
            ),
        ),
        ("--arrivals", "KIND", "constant or poisson (default: constant)"),
        ("-c --concurrency", "N", "number of callers in a closed loop (default: 10)"),
        ("--warm-up", "TIME", "duration of the warm-up, which is excluded from all figures (default: 1s)"),
        ("--max-in-flight", "N", "drop arrivals while N calls are in flight (default: 1000)"),
        (
            "--late-after",
            "TIME",
            "count a call as late if it starts this long after its time (default: 50ms)",
        ),
        ("--deadline", "TIME", "deadline of every call (default: 10s)"),
        ("--processes", "N", "number of processes that generate the load (default: 1)"),
        ("--seed", "TEXT", "seed of the arrivals and the mix (default: random, and reported)"),
    ),
    "mix (shares in per cent)": (
        ("--mix", "WEIGHTS", "weights of SyncLinkage and BindAccount (default: sync=100)"),
        ("--encrypted-target", "HOST:PORT", "a second gateway, with encryption"),
        ("--encrypted", "SHARE", "share of SyncLinkage calls to --encrypted-target (default: 50)"),
        ("--duplicates", "SHARE", "share of calls that repeat an earlier request with the same id"),
        ("--out-of-order", "SHARE", "share of calls that update an earlier linkage with an older biz_time"),
        ("--cancelled", "SHARE", "share of calls that are cancelled within 20 ms"),
        ("--short-deadline", "SHARE", "share of calls with a deadline that is too short"),
        ("--short-deadline-of", "TIME", "the deadline of those calls (default: 50ms)"),
        (
            "--faults",
            "SHARES",
            "shares of faults by user id, in the sandbox: USER_NOT_EXIST=1,DELAY_200=0.5",
        ),
    ),
    "gates": (
        ("--max-p99", "TIME", "limit for p99 of successes, from the intended start (example: 50ms)"),
        ("--max-error-rate", "SHARE", "limit for errors, dropped and unfinished calls (example: 0.1%)"),
        ("--compare", "FILE", "fail if this run is worse than an earlier --json report"),
        ("--compare-tolerance", "SHARE", "accepted increase of p99 in --compare (default: 10)"),
        ("--verify", "URL", "fail if the wallet of the sandbox at URL contradicts the reported outcomes"),
    ),
}


def options_of(args: argparse.Namespace) -> Options:
    """Parse the flags; raise one UsageError that names every fault."""
    faults = Faults()
    connection = Connection("", None)
    try:
        connection = connection_of(args)
    except UsageError as error:
        faults.found += str(error).splitlines()
    options = Options(
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
        options.verify is not None and _ids(options.plan) > REMEMBERED_MAX,
        f"--verify: the sandbox remembers {REMEMBERED_MAX} request ids of each RPC, and this run has more:"
        " lower --rate or --duration",
    )
    one_file = args.json and args.html and Path(args.json).resolve() == Path(args.html).resolve()
    faults.note(bool(one_file), "--json and --html: give two different files")
    if faults.found:
        raise UsageError("\n".join(faults.found))
    return options


def _plan(args: argparse.Namespace, connection: Connection, faults: Faults) -> Plan:
    warm_up = faults.read("--warm-up", amounts.duration, args.warm_up or "1s", 0.0)
    shape = _profile(args, faults)
    _check_loop(args, faults)
    processes = faults.read("--processes", amounts.whole(1, PROCESSES_MAX), args.processes or "1", 1)
    callers = faults.read("--concurrency", amounts.whole(1, CALLS_MAX), args.concurrency or "10", 10)
    in_flight = faults.read(
        "--max-in-flight", amounts.whole(1, CALLS_MAX), args.max_in_flight or "1000", 1000
    )
    for name, number in (
        ("--concurrency", callers if args.closed else PROCESSES_MAX),
        ("--max-in-flight", in_flight),
    ):
        faults.note(number < processes, f"{name}: must be at least the number of processes, {processes}")
    arrivals = args.arrivals or "constant"
    faults.note(
        arrivals not in {"constant", "poisson"}, f"--arrivals: {arrivals!r} must be constant or poisson"
    )
    return Plan(
        target=connection.target,
        tls=connection.tls,
        shared_ledger=connection.shared_ledger,
        encrypted_target=faults.read("--encrypted-target", address_of, args.encrypted_target, None)
        if args.encrypted_target
        else None,
        run=secrets.token_hex(4),
        seed=args.seed or secrets.token_hex(4),
        mix=mix_of(args, faults),
        duration=shape.duration,
        warm_up=warm_up,
        profile=None if args.closed else _warmed_up(shape, warm_up),
        poisson=arrivals == "poisson",
        callers=callers,
        max_in_flight=in_flight,
        deadline=faults.read("--deadline", amounts.positive_duration, args.deadline or "10s", 10.0),
        late_after=faults.read("--late-after", amounts.positive_duration, args.late_after or "50ms", 0.05),
        processes=processes,
        remember=args.verify is not None,
    )


def _ids(plan: Plan) -> float:
    """Return the expected number of request ids of the busier RPC; 0 (unknown) for a closed loop."""
    calls = plan.profile.calls if plan.profile else 0.0
    own = 1 - plan.mix.variants.get(Variant.DUPLICATE, 0.0)
    return calls * max(plan.mix.sync, 1 - plan.mix.sync) * own


def _check_loop(args: argparse.Namespace, faults: Faults) -> None:
    for flag in ("rate", "profile", "arrivals", "max_in_flight"):
        given = args.closed and getattr(args, flag) is not None
        faults.note(given, f"--{flag.replace('_', '-')} cannot be used with --closed")
    faults.note(
        args.concurrency is not None and not args.closed, "--concurrency can only be used with --closed"
    )
    for flag in ("rate", "duration"):
        given = args.profile is not None and getattr(args, flag) is not None
        faults.note(given, f"--{flag} cannot be used with --profile, which replaces it")


def _profile(args: argparse.Namespace, faults: Faults) -> Profile:
    if args.profile is not None:
        return faults.read("--profile", profile, args.profile, constant(50, 10))
    seconds = faults.read("--duration", amounts.positive_duration, args.duration or "10s", 10.0)
    return constant(faults.read("--rate", amounts.positive_rate, args.rate or "50", 50.0), seconds)


def _warmed_up(shape: Profile, warm_up: float) -> Profile:
    """Return the profile with the warm-up in front, at the profile's first rate."""
    first = shape.pieces[0].start_rate
    return Profile((Piece(first, first, warm_up), *shape.pieces)) if warm_up else shape


def _url(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ValueError(f"{text!r} is not a URL of a sandbox, such as http://127.0.0.1:8089")
    return f"{parts.scheme}://{parts.netloc}"
