"""Tools get the API from the gateway by reflection, v1 and v1alpha."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.e2e.material import Material
from tests.peers.gateways import SERVICE, Gateway, gateway
from tests.peers.older import V1, V1ALPHA, server_in_front_of
from tests.peers.processes import run
from tests.peers.requests import sync_linkage

Buf = tuple[str | Path, ...]
SYMBOLS = (SERVICE, "alipayhk.linkage.v1.SyncLinkageRequest", "alipayhk.linkage.v1.BindAccountResponse")


@pytest.fixture(params=[V1, V1ALPHA], ids=["v1", "v1alpha"])
def reflected(
    request: pytest.FixtureRequest, material: Material, alipayhk: str
) -> Iterator[tuple[str, str]]:
    """Return an address that accepts one version, and that version; check that no other was used."""
    with gateway(material, alipayhk) as serving:
        if request.param == V1:
            yield serving.address, "grpc-v1"
        else:
            with server_in_front_of(serving.address) as address:
                yield address, "grpc-v1alpha"
        assert serving.running.end() == 0
        reflection = {method for method in serving.methods_called() if "Reflection" in method}
        assert reflection == {request.param}


def test_grpcurl_lists_and_describes(grpcurl: Path, reflected: tuple[str, str]) -> None:
    address, _ = reflected
    services = run(grpcurl, "-plaintext", address, "list")
    assert services.status == 0, services.err
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services.out.split())
    methods = run(grpcurl, "-plaintext", address, "list", SERVICE)
    assert methods.out.split() == [f"{SERVICE}.BindAccount", f"{SERVICE}.SyncLinkage"]
    for symbol in SYMBOLS:
        described = run(grpcurl, "-plaintext", address, "describe", symbol)
        assert described.out.startswith(f"{symbol} is a "), described.output
    message = run(grpcurl, "-plaintext", address, "describe", "alipayhk.linkage.v1.SyncLinkageRequest")
    assert "string request_id = 1;" in message.out


def test_grpcurl_calls(grpcurl: Path, reflected: tuple[str, str]) -> None:
    data = ("-d", json.dumps(sync_linkage()))
    done = run(grpcurl, "-plaintext", *data, reflected[0], f"{SERVICE}/SyncLinkage")
    assert done.status == 0, done.err


def test_buf_lists_and_calls(buf_curl: Buf, reflected: tuple[str, str]) -> None:
    address, version = reflected
    reflection = ("--reflect-protocol", version)
    services = run(*buf_curl, *reflection, "--list-services", f"http://{address}")
    assert SERVICE in services.out.split(), services.err
    data = ("--data", json.dumps(sync_linkage()))
    done = run(*buf_curl, *reflection, *data, f"http://{address}/{SERVICE}/SyncLinkage")
    assert done.status == 0, done.err
    assert json.loads(done.out)["result"]["status"] == "S"


@pytest.mark.parametrize("path", [V1, V1ALPHA], ids=["v1", "v1alpha"])
def test_reflection_describes_the_details_of_a_status(plain: Gateway, path: str) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    questions = [
        ask(file_by_filename="google/rpc/error_details.proto"),
        ask(file_containing_symbol="google.rpc.ErrorInfo"),
        ask(file_containing_symbol="alipayhk.linkage.v1.ErrorReason"),
    ]
    with grpc.insecure_channel(plain.address) as channel:
        method = channel.stream_stream(
            path,
            request_serializer=ask.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answers = [answer.file_descriptor_response for answer in method(iter(questions), timeout=30)]
    by_name, by_symbol, reason = (list(answer.file_descriptor_proto) for answer in answers)
    assert all(left == right for left, right in pairwise([by_name, by_symbol]))
    details = FileDescriptorProto.FromString(by_name[0])
    assert details.name == error_details_pb2.DESCRIPTOR.name
    assert reason
