"""Compare the load tester with ghz, both in a closed loop: `python -m bench.load [--rounds N]`.

Both call the same servers in turn, round by round, so that the ratios are valid even if the speed of the
machine varies. One server responds immediately, which shows the maximum rate of the generators. The other
one is a gateway with a sandbox. ghz is looked up in .tools/bin (`make .tools/bin/ghz` installs it) and on
PATH.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.material import Material
from tests.load.runs import CLIENT, server
from tests.peers.gateways import gateway, sandbox
from tests.peers.processes import ROOT, environment, run

CALL: Final = "alipayhk.linkage.v1.LinkageService.SyncLinkage"
REQUEST: Final = json.dumps(
    {
        "request_id": "ghz-{{.UUID}}",
        "biz_time": "{{.Timestamp}}",
        "operate_type": "OPERATE_TYPE_BIND",
        "external_identity_type": "EXTERNAL_IDENTITY_TYPE_UID",
        "external_identity_value": "ghz-{{.UUID}}",
        "user_id": "2160000000000001",
        "binding_target_type": "BINDING_TARGET_TYPE_USER_ID",
    }
)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one round."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


def ours(target: str, callers: int, seconds: float, processes: int) -> Figures:
    """Run the load tester."""
    # ghz does not check whether it fell behind. Here only the rate counts, on any machine.
    flags = (
        "--closed",
        "-c",
        str(callers),
        "--duration",
        f"{seconds}s",
        "--warm-up",
        "0s",
        "--late-after",
        "10s",
    )
    command = (*CLIENT, "--target", target, *flags, "--processes", str(processes), "--json")
    report = json.loads(run(*command, env=environment()).out)
    latency = report["success"]["latency"]
    rate = report["rates"]["succeeded"]
    return Figures(rate, latency["p50_us"] / 1e3, latency["p99_us"] / 1e3, report["error"]["count"])


def theirs(ghz: str, target: str, callers: int, seconds: float) -> Figures:
    """Run ghz with one connection, like the load tester."""
    proto = ROOT / "protos" / "alipayhk" / "linkage" / "v1" / "linkage_service.proto"
    flags = ("--insecure", "-i", str(ROOT / "protos"), "--proto", str(proto), "--call", CALL, "-d", REQUEST)
    load = ("-c", str(callers), "-z", f"{seconds}s", "--duration-stop", "wait", "-O", "json", target)
    report = json.loads(run(ghz, *flags, *load).out)
    codes = report["statusCodeDistribution"]
    at = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"]}
    succeeded = codes.get("OK", 0)
    rate = succeeded / (report["total"] / 1e9)
    return Figures(rate, at[50], at[99], sum(codes.values()) - succeeded)


def found_ghz() -> str | None:
    """Return the path of ghz, or None if it is not installed."""
    return shutil.which("ghz", path=str(ROOT / ".tools" / "bin")) or shutil.which("ghz")


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Run the servers; return their addresses by name."""
    with tempfile.TemporaryDirectory() as directory, server("answers") as answering:
        material = Material(Path(directory))
        with (
            sandbox(material) as url,
            gateway(material, url, LEDGER_URL="memory:", LOG_LEVEL="info") as serving,
        ):
            yield {"immediate": answering, "gateway": serving.address}


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 50])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ghz", default=found_ghz())
    args = parser.parse_args()
    if args.ghz is None:
        sys.stderr.write("ghz is not installed: run `make .tools/bin/ghz`\n")
        return 1
    heads = "".join(f"{head:>9}" for head in ("calls/s", "p50 ms", "p99 ms", "errors"))
    print(f"{'server':<16}{'callers':>8}{'':>3}{'tool':<6}{heads}")
    with servers() as targets:
        for name, target in targets.items():
            for callers in args.callers:
                row(name, target, callers, args)
    return 0


def row(name: str, target: str, callers: int, args: argparse.Namespace) -> None:
    """Measure both tools in turn, and print the medians."""
    rounds: dict[str, list[Figures]] = {"ours": [], "ghz": []}
    for _ in range(args.rounds):
        rounds["ghz"].append(theirs(args.ghz, target, callers, args.seconds))
        rounds["ours"].append(ours(target, callers, args.seconds, min(args.processes, callers)))
    for tool, figures in rounds.items():
        rate, p50, p99 = (
            statistics.median(getattr(one, field) for one in figures)
            for field in ("rate", "p50_ms", "p99_ms")
        )
        errors = sum(one.errors for one in figures)
        print(f"{name:<16}{callers:>8}{'':>3}{tool:<6}{rate:>9.0f}{p50:>9.2f}{p99:>9.2f}{errors:>9}")
    ratios = [mine.rate / other.rate for mine, other in zip(rounds["ours"], rounds["ghz"], strict=True)]
    extremes = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{'':<27}ours : ghz = {statistics.median(ratios):.2f} {extremes}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
