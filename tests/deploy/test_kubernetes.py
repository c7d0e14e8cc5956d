"""The objects for Kubernetes are valid, safe, and fit the settings that they contain."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from service.config.settings import Settings, read_settings
from service.jobs.maintenance import LEDGER_CLOSE_S
from tests.e2e.material import Material
from tests.peers.processes import ROOT, run
from tests.peers.tools import check, peer

DIRECTORY: Final = ROOT / "deploy/kubernetes"
OVERLAYS: Final = ("sqlite", "postgres")
VERSIONS: Final = ("1.32", "1.37")
"""The oldest and the newest version of Kubernetes whose schemas are checked."""
SETTINGS: Final = "/etc/alipayhk-gateway/"
SECRETS: Final = {
    "alipayhk-gateway-keys": {"signing.key.pem", "alipayhk.pub.pem"},
    "alipayhk-gateway-tls": {"tls.crt", "tls.key", "ca.crt"},
    "alipayhk-gateway-ledger": {"ledger.key", "pgpass", "db-ca.crt"},
}
"""The files of the Secrets that docs/kubernetes.md tells operators to create."""
Tree = dict[str, Any]


@cache
def built(overlay: str) -> str:
    done = run(peer("kustomize"), "build", DIRECTORY / overlay)
    assert (done.status, done.err) == (0, "")
    return done.out


def objects(overlay: str) -> list[Tree]:
    return list(yaml.safe_load_all(built(overlay)))


def of_kind(overlay: str, kind: str) -> list[Tree]:
    return [each for each in objects(overlay) if each["kind"] == kind]


def job() -> Tree:
    tree: Tree = yaml.safe_load((DIRECTORY / "postgres/ledger-init.yaml").read_text("utf-8"))
    return tree


def pods() -> list[Tree]:
    deployments = [of_kind(overlay, "Deployment")[0] for overlay in OVERLAYS]
    return [each["spec"]["template"]["spec"] for each in (*deployments, job())]


def containers(pod: Tree) -> list[Tree]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment_of(container: Tree) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", [])}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_has_the_schema_of_kubernetes(overlay: str, tmp_path: Path) -> None:
    (file := tmp_path / "objects.yaml").write_text(built(overlay), "utf-8")
    files = [file] if overlay == "sqlite" else [file, DIRECTORY / "postgres/ledger-init.yaml"]
    for version in VERSIONS:
        done = run(check("kubernetes-validate"), "--strict", "-k", version, *files)
        assert done.status == 0, done.output


def test_no_container_has_more_rights_than_it_needs() -> None:
    for pod in pods():
        assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
        user = pod["securityContext"]
        assert (user["runAsNonRoot"], user["runAsUser"], user["fsGroup"]) == (True, 65532, 65532)
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"memory"} == container["resources"]["limits"].keys(), "a CPU limit delays calls"


def test_no_secret_is_a_variable() -> None:
    for pod in pods():
        for container in containers(pod):
            assert "envFrom" not in container
            assert all("valueFrom" not in each for each in container.get("env", []))
            url = environment_of(container).get("ALIPAYHK_LEDGER_URL", "")
            assert ":" not in url.removeprefix("postgresql://").partition("@")[0]


def settings_of(overlay: str, material: Material) -> Settings:
    """Read the settings of a gateway in the cluster, with the files that they name on this machine."""
    (configuration,) = of_kind(overlay, "ConfigMap")
    mounted = material.directory / "mounted"
    mounted.mkdir()
    certificate = material.callers_ca.issue("gateway", "gateway.internal")
    files = {
        "signing.key.pem": material.ours.private_file.read_text(),
        "alipayhk.pub.pem": material.theirs.public_file.read_text(),
        "tls.crt": certificate.chain_file.read_text(),
        "tls.key": certificate.key_file.read_text(),
        "ca.crt": material.callers_ca.file.read_text(),
        "ledger.key": "A" * 43 + "=",
    }
    texts = {**configuration["data"], **files}
    for name, text in texts.items():
        (mounted / name).write_text(text.replace(SETTINGS, f"{mounted}/"))
    (container,) = of_kind(overlay, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    environ = {
        name: value.replace("/run/ledger/", f"{mounted}/")
        for name, value in environment_of(container).items()
    }
    assert container["args"] == ["serve", "--config", f"{SETTINGS}gateway.toml"]
    return read_settings(environ, mounted / "gateway.toml")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_probes_and_times_are_those_of_the_settings(overlay: str, tmp_path: Path) -> None:
    settings = settings_of(overlay, Material(tmp_path))
    assert settings.health_listen is not None
    ports = {
        "grpc": settings.listen.port,
        "admin": settings.admin_listen.port,
        "health": settings.health_listen.port,
    }
    pod = of_kind(overlay, "Deployment")[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == ports
    probes = [container[f"{name}Probe"]["grpc"] for name in ("readiness", "startup", "liveness")]
    assert [(probe["port"], probe.get("service", "")) for probe in probes] == [
        (ports["health"], ""),
        (ports["health"], "liveness"),
        (ports["health"], "liveness"),
    ]
    stop_s = settings.drain_delay_s + settings.stop_grace_s + LEDGER_CLOSE_S
    assert pod["terminationGracePeriodSeconds"] > stop_s
    (policy,) = of_kind(overlay, "NetworkPolicy")
    allowed = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    assert allowed == ["grpc", "admin"], "probes come from the node, which is always allowed"
    assert all(rule["from"] for rule in policy["spec"]["ingress"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_file_that_is_named_is_mounted_from_a_documented_secret(overlay: str) -> None:
    page = (ROOT / "docs/kubernetes.md").read_text("utf-8")
    (pod,) = (each["spec"]["template"]["spec"] for each in of_kind(overlay, "Deployment"))
    (configuration,) = of_kind(overlay, "ConfigMap")
    mounted = set(configuration["data"])
    for volume in pod["volumes"]:
        sources = [*volume.get("projected", {}).get("sources", []), volume]
        for secret in (source["secret"] for source in sources if "secret" in source):
            name = secret.get("name") or secret["secretName"]
            assert f"generic {name} " in page
            assert all(f"--from-file={file}" in page for file in SECRETS[name])
            mounted |= SECRETS[name]
    text = f"{configuration['data']['gateway.toml']}{environment_of(pod['containers'][0])}"
    named = {path for path in text.replace('"', " ").replace("'", " ").split() if path.startswith("/etc/")}
    assert {path.rpartition("/")[2] for path in named} <= mounted


def test_only_one_gateway_uses_a_ledger_in_a_file(tmp_path: Path) -> None:
    (deployment,) = of_kind("sqlite", "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    (volume,) = of_kind("sqlite", "PersistentVolumeClaim")
    assert volume["spec"]["accessModes"] == ["ReadWriteOnce"]
    settings = settings_of("sqlite", Material(tmp_path))
    assert settings.ledger_url == "sqlite:///alipayhk-ledger.db"
    mounts = deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    workdir = "/var/lib/alipayhk-gateway"
    assert {"name": "ledger", "mountPath": workdir} in mounts
    assert f"\nWORKDIR {workdir}\n" in (ROOT / "Dockerfile").read_text("utf-8")


def test_gateways_on_postgresql_are_replaced_one_by_one_and_callers_reach_all(tmp_path: Path) -> None:
    (deployment,) = of_kind("postgres", "Deployment")
    spec = deployment["spec"]
    assert spec["replicas"] > 1
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert of_kind("postgres", "PersistentVolumeClaim") == []
    (budget,) = of_kind("postgres", "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    labels = spec["template"]["metadata"]["labels"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    for selector in (budget["spec"]["selector"], *(each["labelSelector"] for each in spread)):
        assert selector["matchLabels"].items() <= labels.items()
    (service,) = of_kind("postgres", "Service")
    assert service["spec"]["clusterIP"] == "None"
    assert settings_of("postgres", Material(tmp_path)).max_connection_age_s > 0


def test_ledger_init_has_the_ledger_of_the_gateways() -> None:
    (deployment,) = of_kind("postgres", "Deployment")
    gateway, init = deployment["spec"]["template"]["spec"], job()["spec"]["template"]["spec"]
    of_gateway = environment_of(gateway["containers"][0])
    of_gateway.pop("ALIPAYHK_MAX_CONNECTION_AGE_S")
    assert environment_of(init["containers"][0]) == of_gateway
    assert init["initContainers"] == gateway["initContainers"]
    assert init["containers"][0]["image"] == gateway["containers"][0]["image"]
    assert init["containers"][0]["args"] == ["ledger", "init"]
    volumes = {each["name"]: each for each in gateway["volumes"]}
    assert all(volumes[each["name"]] == each for each in init["volumes"])
