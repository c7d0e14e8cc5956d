"""A real Prometheus scrapes a real gateway: the rules load, alerts fire, and every panel has data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from alipayhk.linkage.v1.linkage_service_pb2_grpc import LinkageServiceStub
from tests.e2e.material import Material
from tests.monitoring.prometheus import RULES, Prometheus, panels, scraping, until, with_values
from tests.peers.gateways import gateway, sandbox
from tests.service.fakes import bind_request, sync_request

ONLY_IF_BAD: Final = {"up{", "OVERLOADED"}
"""Words in expressions that have data only if something is bad."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Return a Prometheus and a gateway whose certificate expires soon; AlipayHK has refused it once."""
    material = Material(tmp_path_factory.mktemp("keys"))
    certificate = material.callers_ca.issue("gateway", "127.0.0.1", days=(-1, 5))
    files = {"TLS_CERT_FILE": str(certificate.chain_file), "TLS_KEY_FILE": str(certificate.key_file)}
    with (
        sandbox(material) as url,
        gateway(material, url, **files) as served,
        scraping(served.settings["ADMIN_LISTEN"], tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        until(lambda: prometheus.query("alipayhk_workers"))
        call(served.address, material.callers_ca.file)
        yield prometheus


def call(address: str, ca: Path) -> None:
    """Make a call that AlipayHK applies, and one that it refuses because of the gateway."""
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        stub: Any = LinkageServiceStub(channel)  # type: ignore[no-untyped-call]
        assert stub.SyncLinkage(sync_request(), timeout=30).result.status == "S"
        with pytest.raises(grpc.RpcError, match="INTERNAL"):
            stub.BindAccount(bind_request(user_id="2160000000000001+ACCESS_DENIED"), timeout=30)


def test_the_rules_load_and_the_right_alerts_fire(prometheus: Prometheus) -> None:
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == RULES.read_text("utf-8").count("expr:")
    expected = {"AlipayhkCertificateExpires", "AlipayhkRefused"}
    until(lambda: prometheus.firing() == expected)
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


@pytest.mark.parametrize("title", panels())
def test_a_panel_has_data(prometheus: Prometheus, title: str) -> None:
    for expression in panels()[title]:
        if not any(words in expression for words in ONLY_IF_BAD):
            until(lambda expression=expression: prometheus.query(with_values(expression)))
