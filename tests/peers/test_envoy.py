"""A real Envoy translates JSON to gRPC for callers without gRPC, as docs/proxies.md says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from service.config.declaration import declared
from service.config.settings import Settings
from tests.e2e.material import Material
from tests.peers.gateways import SERVICE, Gateway, Identities, gateway, tls
from tests.peers.processes import ROOT, WAIT_MAX_S, run, running
from tests.peers.requests import bind_account, sync_linkage
from tests.peers.tools import check
from tests.ports import free_port

FILE: Final = ROOT / "deploy/envoy/json.yaml"
TIMEOUT: Final = "timeout: 65s"
FLAGS: Final = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "info")


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    url: str

    def call(
        self, method: str, request: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """POST a request; return the HTTP status and the body."""
        posted = urllib.request.Request(
            f"{self.url}/{SERVICE}/{method}",
            json.dumps(request).encode(),
            {"Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(posted, timeout=WAIT_MAX_S) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text


@pytest.fixture(scope="module")
def descriptor(material: Material, grpcurl: Path, plain: Gateway) -> Path:
    """Write the descriptor set with the commands of docs/proxies.md."""
    file = material.directory / "linkage.binpb"
    sets = b""
    for symbol in (SERVICE, "google.rpc.ErrorInfo"):
        part = material.directory / "part.binpb"
        done = run(grpcurl, "-plaintext", "-protoset-out", part, plain.address, "describe", symbol)
        assert done.status == 0, done.output
        sets += part.read_bytes()
        part.unlink()
    file.write_bytes(sets)
    return file


@contextmanager
def envoy(
    directory: Path, gateway: Gateway, files: Mapping[str, Path], timeout: str = TIMEOUT
) -> Iterator[Envoy]:
    """Run Envoy with the committed configuration, with this machine's files and ports."""
    port, (host, _, to) = free_port(), gateway.address.rpartition(":")
    text = FILE.read_text("utf-8")
    replaced = {
        "port_value: 8080": f"port_value: {port}",
        "address: gateway.internal, port_value: 50051": f"address: {host}, port_value: {to}",
        TIMEOUT: timeout,
        **{f"/etc/envoy/{name}": str(file) for name, file in files.items()},
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (file := directory / f"envoy-{port}.yaml").write_text(text, "utf-8")
    with running(check("envoy"), "-c", file, *FLAGS) as process:
        process.wait_for_output("starting main dispatch loop")
        process.wait_for_output("all clusters initialized")
        yield Envoy(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def files(descriptor: Path, who: Identities) -> dict[str, Path]:
    return {
        "linkage.binpb": descriptor,
        "tls.crt": who.loyalty.chain_file,
        "tls.key": who.loyalty.key_file,
        "ca.crt": Path(who.ca),
    }


@pytest.fixture(scope="module")
def json_proxy(material: Material, over_mtls: Gateway, files: dict[str, Path]) -> Iterator[Envoy]:
    with envoy(material.directory, over_mtls, files) as proxy:
        yield proxy


def reported(body: Any) -> dict[str, str]:
    """Return reason and metadata of the ErrorInfo in a status in JSON."""
    (info,) = (each for each in body["details"] if each["@type"].endswith("/google.rpc.ErrorInfo"))
    return {"reason": info["reason"], **info["metadata"]}


def test_json_caller_gets_the_response(json_proxy: Envoy) -> None:
    status, body = json_proxy.call("SyncLinkage", sync_linkage())
    assert (status, body["result"]["status"], body["result"]["code"]) == (200, "S", "SUCCESS")


def test_json_caller_gets_the_outcome_of_a_refused_call(json_proxy: Envoy) -> None:
    refused = sync_linkage(user_id="2160000000000001+USER_NOT_EXIST")
    status, body = json_proxy.call("SyncLinkage", refused)
    info = reported(body)
    assert (status, body["code"]) == (404, 5)
    assert (info["reason"], info["outcome"], info["retry"]) == (
        "WALLET_REJECTED",
        "rejected",
        "new_request_id",
    )


def test_json_caller_gets_every_violation(json_proxy: Envoy) -> None:
    status, body = json_proxy.call("SyncLinkage", {"request_id": "json-1"})
    (bad,) = (each for each in body["details"] if each["@type"].endswith("/google.rpc.BadRequest"))
    assert (status, reported(body)["reason"]) == (400, "INVALID_REQUEST")
    assert len(bad["field_violations"]) > 1


def test_json_caller_is_the_caller_of_envoys_certificate(json_proxy: Envoy, over_mtls: Gateway) -> None:
    request = bind_account()
    status, body = json_proxy.call("BindAccount", request)
    assert (status, reported(body)["reason"]) == (403, "CALLER_NOT_ALLOWED")
    assert over_mtls.call_logged(request["request_id"])["caller"]


def test_unknown_method_is_not_found(json_proxy: Envoy) -> None:
    assert json_proxy.call("Other", {})[0] == 404


def test_calls_are_neither_repeated_nor_cut_before_their_deadline(
    json_proxy: Envoy, over_mtls: Gateway
) -> None:
    (listener,) = yaml.safe_load(FILE.read_text("utf-8"))["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    (route,) = (each["route"] for each in host["routes"])
    defaults = {name: field.metadata["default"] for name, field in declared(Settings)}
    assert float(route["timeout"].removesuffix("s")) > float(defaults["deadline_max_s"])
    assert not {"retry_policy", "hedge_policy"} & (host.keys() | route.keys())

    asking = {"x-envoy-retry-grpc-on": "resource-exhausted,unavailable", "x-envoy-max-retries": "3"}
    failing = sync_linkage(user_id="2160000000000001+REQUEST_TRAFFIC_EXCEED_LIMIT")
    status, body = json_proxy.call("SyncLinkage", failing, {**asking, "grpc-timeout": "1S"})
    assert (status, reported(body)["reason"]) == (429, "WALLET_RATE_LIMITED")
    json_proxy.call("SyncLinkage", last := sync_linkage())
    over_mtls.running.wait_for_output(f'"request_id": "{last["request_id"]}"')
    calls = [record["request_id"] for record in over_mtls.records() if record["event"] == "call"]
    assert calls.count(failing["request_id"]) == 1


@pytest.mark.full
@pytest.mark.parametrize(("timeout", "has_outcome"), [(TIMEOUT, True), ("timeout: 15s", False)])
def test_envoys_default_timeout_ends_a_long_call_without_its_outcome(
    material: Material,
    alipayhk: str,
    who: Identities,
    files: dict[str, Path],
    timeout: str,
    has_outcome: bool,
) -> None:
    settings = tls(who, TLS_CLIENT_CA_FILE=who.ca, UPSTREAM_TIMEOUT_S="20", STOP_GRACE_S="20")
    slow = sync_linkage(user_id="2160000000000001+DELAY_17000")
    with (
        gateway(material, alipayhk, **settings) as serving,
        envoy(material.directory, serving, files, timeout) as proxy,
    ):
        status, body = proxy.call("SyncLinkage", slow, {"grpc-timeout": "30S"})
    if has_outcome:
        assert (status, body["result"]["status"]) == (200, "S")
    else:
        assert status == 504
        assert "details" not in body
