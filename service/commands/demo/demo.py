"""`alipayhk-gateway demo`: try the gateway on this machine, without configuration.

It creates keys, starts the sandbox and two gateways (the second one encrypts), makes four calls, and prints
the result of each.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.json_format import MessageToJson
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from clients.alipayhk.api import Api

from ...config.environment import environment_for_children
from ...ledger.sqlite.opening import url_of
from ...server.linkage_service import RPCS
from ..keys import generate
from .calls import ENCRYPTED, EXAMPLES, PLAIN, Example
from .ports import PortTakenError, is_listening, wait_until_free

PLAIN_ADMIN: Final = "127.0.0.1:9464"
ENCRYPTED_ADMIN: Final = "127.0.0.1:9465"
SANDBOX: Final = "127.0.0.1:8089"
CLIENT_ID: Final = "SANDBOX_CLIENT_1"
PATHS: Final = {Api.SYNC_LINKAGE: "/sandbox/binding/sync", Api.BIND_ACCOUNT: "/sandbox/account/bind"}
START_S: Final = 30.0
STOP_S: Final = 30.0
INTERRUPTED: Final = 130


class DemoError(Exception):
    """The demo has failed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--once", action="store_true", help="exit after the calls; status 0 if all results are as expected"
    )


def run(args: argparse.Namespace) -> int:
    """Start everything, make the calls, and stay up until Ctrl-C."""
    # These must stop the child processes too. Under nohup SIGHUP is ignored.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="alipayhk-demo-") as directory, ExitStack() as stack:
            _start_all(Path(directory), stack)
            as_expected = [_make(example) for example in EXAMPLES]
            print(_HINTS.replace("DIR", directory), flush=True)
            if not args.once:
                _wait_for_ctrl_c()
            return 0 if all(as_expected) else 1
    except (DemoError, PortTakenError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _start_all(directory: Path, stack: ExitStack) -> None:
    for address in (PLAIN, ENCRYPTED, SANDBOX, PLAIN_ADMIN, ENCRYPTED_ADMIN):
        wait_until_free(address)
    print(f"Making keys in {directory} (removed at the end) ...", flush=True)
    ours, theirs, examiner = (generate(directory, name) for name in ("merchant", "alipayhk", "examiner"))
    (captures := directory / "captures").mkdir()
    print(f"Starting the sandbox AlipayHK on http://{SANDBOX} ...", flush=True)
    sandbox = [
        *("sandbox", "--listen", SANDBOX, "--client-id", CLIENT_ID),
        *("--private-key-file", theirs["private_key_file"]),
        *("--merchant-public-key-files", f"1={ours['public_key_file']}"),
        *(f"--{api.name.lower().replace('_', '-')}-path={path}" for api, path in PATHS.items()),
    ]
    _start(stack, SANDBOX, sandbox, directory / "sandbox.log")
    common = {
        "BASE_URL": f"http://{SANDBOX}",
        "CLIENT_ID": CLIENT_ID,
        "SIGNING_KEY_FILE": ours["private_key_file"],
        "PUBLIC_KEY_FILES": f"1={theirs['public_key_file']}",
        **{f"{api.name}_PATH": path for api, path in PATHS.items()},
        "CAPTURE_DIR": str(captures),
        "CAPTURE_RECIPIENT_FILE": examiner["public_key_file"],
        "DRAIN_DELAY_S": "0",
        "LEDGER_URL": url_of(directory / "ledger.db"),
    }
    print(f"Starting a gateway on {PLAIN} ...", flush=True)
    plain = {"LISTEN": PLAIN, "ADMIN_LISTEN": PLAIN_ADMIN}
    _start(stack, PLAIN, ["serve"], directory / "gateway.log", **common, **plain)
    print(f"Starting a gateway that encrypts on {ENCRYPTED} ...", flush=True)
    encrypted = {"LISTEN": ENCRYPTED, "ADMIN_LISTEN": ENCRYPTED_ADMIN, "ENCRYPT": "true"}
    encrypted["REQUIRE_ENCRYPTED_RESPONSE"] = "true"
    encrypted["LEDGER_URL"] = url_of(directory / "ledger-encrypting.db")
    _start(stack, ENCRYPTED, ["serve"], directory / "encrypting.log", **common | encrypted)
    print()


def _start(stack: ExitStack, address: str, arguments: list[str], log: Path, **settings: str) -> None:
    process = stack.enter_context(_child(log, arguments, environment_for_children(**settings)))
    _wait_until_listening(address, process, log)


@contextmanager
def _child(
    log: Path, arguments: list[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run another command of this program; stop it on exit."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and arguments)
            [sys.executable, "-P", "-m", "service", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=STOP_S)
            finally:
                # After STOP_S or a second Ctrl-C; the child must not outlive this program.
                process.kill()
                process.wait()


def _wait_until_listening(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        if is_listening(address):
            return
        time.sleep(0.05)
    raise DemoError(f"nothing listens on {address}; its log:\n{log.read_text()}")


def _make(example: Example) -> bool:
    """Make one call and print its result; return whether it is as expected."""
    rpc = next(rpc for rpc in RPCS.values() if rpc.name == example.method)
    request = example.request(time.time_ns() // 1_000_000)
    print(f"== {example.title}\n   {example.method} on {example.address}, request id {_id(request)}")
    # A proxy in the environment cannot reach the loopback of this machine.
    with grpc.insecure_channel(example.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.response.FromString,
        )
        try:
            response = call(request, timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            result, text = _refusal(error)
        else:
            result, text = "OK", MessageToJson(response, indent=None, ensure_ascii=False)
    is_expected = result == example.expected
    print(f"   {text}\n   {'as expected' if is_expected else f'NOT as expected: {example.expected}'}\n")
    return is_expected


def _id(request: Any) -> str:
    return str(request.request_id)


def _refusal(error: Any) -> tuple[str, str]:
    """Return the code and reason of a status, and a line with its message and details."""
    trailers = dict(error.trailing_metadata() or ())
    status, info = Status.FromString(trailers.get("grpc-status-details-bin", b"")), ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    facts = ", ".join(f"{name}: {info.metadata[name]}" for name in sorted(info.metadata))
    return (
        f"{error.code().name} {info.reason}",
        f"{error.code().name}: {error.details()} ({info.reason}; {facts})",
    )


def _wait_for_ctrl_c() -> None:
    print("Everything stays up until Ctrl-C.", flush=True)
    try:
        Event().wait()
    except KeyboardInterrupt:
        print("\nStopping ...", flush=True)


_HINTS: Final = f"""Call it yourself (`make peers` installs grpcurl into .tools/bin):

  grpcurl -plaintext {PLAIN} describe alipayhk.linkage.v1.LinkageService

  grpcurl -plaintext -d '{{"request_id": "me-1", "biz_time": "2026-03-01T08:00:00Z",
    "operate_type": "OPERATE_TYPE_BIND", "external_identity_type": "EXTERNAL_IDENTITY_TYPE_UID",
    "external_identity_value": "member-1001", "user_id": "2160000000000001",
    "binding_target_type": "BINDING_TARGET_TYPE_USER_ID"}}' \\
    {PLAIN} alipayhk.linkage.v1.LinkageService/SyncLinkage

With the user id 2160000000000001+BAD_SIGNATURE the sandbox signs its response wrongly. This says why:

  .venv/bin/alipayhk-gateway doctor message "$(ls DIR/captures/*.capture | tail -1)" \\
    --capture-key DIR/examiner.key.pem --public-key-files 1=DIR/alipayhk.pub.pem

What reached the sandbox: http://{SANDBOX}/__sandbox/requests
Metrics: http://{PLAIN_ADMIN}/metrics
"""
