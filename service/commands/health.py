"""`alipayhk-gateway health`: check whether a gateway is serving; exit codes as in grpc_health_probe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.alipayhk.regular_file import read_regular

from ..config.environment import probed_address, process_environment, settings_texts
from ..config.settings_file import texts_of_file
from .exit_codes import BAD_ARGUMENTS, fail
from .health_cause import TlsFiles, cause_of_no_connection
from .options import add_config

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
TIMEOUT_MAX_S: Final = 86_400.0
SERVING: Final = 0
NO_CONNECTION: Final = 2
RPC_FAILED: Final = 3
NOT_SERVING: Final = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Exit status: 0 serving, 1 bad arguments, 2 no connection, 3 the RPC failed, 4 not serving."
    )
    parser.add_argument(
        "--addr",
        type=_address,
        help=f"host:port (default: HEALTH_LISTEN, else LISTEN, else {DEFAULT_ADDRESS})",
    )
    add_config(parser)
    parser.add_argument("--service", default="", help="name of a service, or liveness (default: readiness)")
    parser.add_argument(
        "--timeout",
        type=_timeout_s,
        default=3.0,
        metavar="SECONDS",
        help=f"for connection and response each; at most {TIMEOUT_MAX_S:g} (default: %(default)g)",
    )
    parser.add_argument("--tls-ca-file", type=Path, help="CA of the gateway's certificate; enables TLS")
    parser.add_argument("--tls-cert-file", type=Path, help="client certificate")
    parser.add_argument("--tls-key-file", type=Path, help="private key of the client certificate")
    parser.add_argument("--tls-server-name", help="expected name in the gateway's certificate")
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    """Check once."""
    if (args.tls_cert_file is None) != (args.tls_key_file is None) or (
        args.tls_cert_file is not None and args.tls_ca_file is None
    ):
        return fail(
            "give --tls-cert-file and --tls-key-file together, and with --tls-ca-file", BAD_ARGUMENTS
        )
    try:
        args.addr = args.addr or _address_in_settings(args.config)
        credentials = _credentials(args)
    except argparse.ArgumentTypeError as error:
        return fail(str(error), BAD_ARGUMENTS)
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}", BAD_ARGUMENTS)
    with _channel(args, credentials) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=args.timeout)
        except grpc.FutureTimeoutError:
            return fail(_no_connection(args), NO_CONNECTION)
        try:
            request = health_pb2.HealthCheckRequest(service=args.service)
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=args.timeout)
        except grpc.RpcError as error:
            return fail(f"the health check failed: {error.code().name}", RPC_FAILED)
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    print(json.dumps({"status": name}) if args.json else f"status: {name}")
    return SERVING if response.status == health_pb2.HealthCheckResponse.SERVING else NOT_SERVING


def _no_connection(args: argparse.Namespace) -> str:
    tls = TlsFiles(args.tls_ca_file, args.tls_cert_file, args.tls_key_file) if args.tls_ca_file else None
    cause = cause_of_no_connection(args.addr, tls, args.tls_server_name)
    text = f"no connection to {args.addr} within {args.timeout:g} s"
    return f"{text}: {cause}" if cause else text


def _address_in_settings(config_file: Path | None) -> str:
    """Return the address of the gateway with these settings; raise ArgumentTypeError."""
    faults: list[str] = []
    texts = texts_of_file(config_file, faults) | settings_texts(process_environment())
    if faults:
        raise argparse.ArgumentTypeError(faults[0])
    return _address(probed_address(texts, DEFAULT_ADDRESS))


def _address(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError("the address must be host:port")
    return text


def _timeout_s(text: str) -> float:
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = 0.0
    if not 0 < timeout_s <= TIMEOUT_MAX_S:  # also false for NaN
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {TIMEOUT_MAX_S:g} seconds")
    return timeout_s


def _channel(args: argparse.Namespace, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    # A probe connects to the gateway directly, even if the environment names a proxy.
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return grpc.insecure_channel(args.addr, options=options)
    if args.tls_server_name:
        options.append(("grpc.ssl_target_name_override", args.tls_server_name))
    return grpc.secure_channel(args.addr, credentials, options=options)


def _credentials(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    if args.tls_ca_file is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=read_regular(args.tls_ca_file),
        private_key=read_regular(args.tls_key_file) if args.tls_key_file else None,
        certificate_chain=read_regular(args.tls_cert_file) if args.tls_cert_file else None,
    )
