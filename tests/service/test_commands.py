"""The command line: exit statuses, faults without a traceback, and keys generated and inspected."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from clients.alipayhk.wire.keys import fingerprint, load_private_key, load_public_key, public_der
from service import version
from service.commands.cli import main
from service.server import ports
from tests.certificates import curve_key, private_pem
from tests.ports import free_port
from tests.service.files import KeyRing

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an environment without settings."""
    for name in list(os.environ):
        if name.startswith("ALIPAYHK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def configured(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., None]:
    """Return a function that sets the environment, in a directory where a ledger can be created."""
    monkeypatch.chdir(tmp_path)

    def configure(**changes: str) -> None:
        for name, value in {
            **environ,
            **{f"ALIPAYHK_{name}": value for name, value in changes.items()},
        }.items():
            monkeypatch.setenv(name, value)

    return configure


COMMANDS: Final = (
    (),
    ("serve",),
    ("sandbox",),
    ("demo",),
    ("keys",),
    ("keys", "generate"),
    ("keys", "inspect"),
    ("config",),
    ("config", "check"),
    ("config", "example"),
    ("doctor",),
    ("doctor", "message"),
    ("health",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: alipayhk-gateway")


def test_version_is_printed(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+ \(commit [0-9a-f]{12}\)\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("content", "commit"), [("1a2b3c4d5e6f\n", "1a2b3c4d5e6f"), ("\n", "unknown"), (None, "unknown")]
)
def test_an_installed_wheel_has_the_commit_in_a_file(
    tmp_path: Path, content: str | None, commit: str
) -> None:
    (package := tmp_path / "service").mkdir()
    if content is not None:
        (package / "COMMIT").write_text(content)
    assert version.commit(package / "COMMIT") == commit


def test_the_commit_is_unknown_if_git_cannot_read_the_checkout(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert version.commit(tmp_path / "service" / "COMMIT") == "unknown"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 64),
        (["nonsense"], 64),
        (["--nonsense"], 64),
        (["serve", "--nonsense"], 64),
        (["serve", "extra"], 64),
        (["serve", "--config"], 64),
        (["keys"], 64),
        (["keys", "generate"], 64),
        (["keys", "generate", "x", "--bits", "many"], 64),
        (["config"], 64),
        (["doctor"], 64),
        (["doctor", "message"], 64),
        (["doctor", "message", "-", "--protocol", "soap"], 64),
        # The exit status of grpc_health_probe for bad arguments.
        (["health", "--nonsense"], 1),
        (["health", "--timeout", "soon"], 1),
        (["health", "--timeout", "-1"], 1),
        (["health", "extra"], 1),
    ],
    ids=str,
)
def test_bad_usage_prints_the_usage_and_has_its_own_status(
    arguments: list[str], status: int, capsys: Captured
) -> None:
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: alipayhk-gateway")


# -- config and serve


HEADING: Final = (
    "alipayhk-gateway: the configuration cannot be used "
    "(NAME is ALIPAYHK_NAME in the environment, or name in the file of --config):"
)
FAULTY: Final = {"CLIENT_ID": "hunter two", "ENCRYPT": "maybe", "NONSENSE": "hunter"}


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]], ids=" ".join)
def test_each_fault_has_one_line_with_exit_78_and_no_traceback(
    command: list[str], configured: Callable[..., None], capsys: Captured
) -> None:
    configured(**FAULTY)
    assert main(command) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        HEADING,
        "  - CLIENT_ID must be 1 to 64 printable ASCII characters without space",
        "  - ENCRYPT must be true or false",
        "  - NONSENSE is not a setting",
    ]


def test_faults_are_printed_as_json(configured: Callable[..., None], capsys: Captured) -> None:
    configured(**FAULTY)
    assert main(["config", "check", "--json"]) == 78
    reported = json.loads(capsys.readouterr().out)
    assert [fault.split()[0] for fault in reported["faults"]] == ["CLIENT_ID", "ENCRYPT", "NONSENSE"]


def test_a_missing_config_file_is_a_fault(tmp_path: Path, capsys: Captured) -> None:
    assert main(["config", "check", "--config", str(tmp_path / "absent.toml")]) == 78
    absent = f"{tmp_path}/absent.toml cannot be read: No such file or directory (below {tmp_path})"
    assert capsys.readouterr().err.splitlines()[1:] == [f"  - --config {absent}"]


@pytest.mark.parametrize(
    ("output", "status", "error"),
    [
        ("| true", 141, ""),
        ("> /dev/full", 74, "alipayhk-gateway: standard output: No space left on device\n"),
    ],
)
@pytest.mark.parametrize("command", ["config check", "config check --json"])
def test_output_that_cannot_be_written_is_no_traceback(
    command: str, output: str, status: int, error: str, configured: Callable[..., None]
) -> None:
    configured()
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m service {command} {output}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (status, error)


def test_effective_settings_are_shown(
    configured: Callable[..., None], tmp_path: Path, capsys: Captured
) -> None:
    configured(UPSTREAM_PROXY="http://user:hunter2@proxy:3128")
    path = tmp_path / "gateway.toml"
    path.write_text("max_in_flight = 7")
    assert main(["config", "check", "--config", str(path)]) == 0
    text = capsys.readouterr().out
    assert main(["config", "check", "--config", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["settings"]
    assert text.splitlines() == [f"{name} = {value}" for name, value in rows.items()]
    assert (rows["MAX_IN_FLIGHT"], rows["UPSTREAM_PROXY"]) == ("7", "http://proxy:3128")
    assert "hunter2" not in text + json.dumps(rows)


@pytest.mark.parametrize(
    ("listener", "reason"),
    [("LISTEN", "another program uses 127.0.0.1:"), ("ADMIN_LISTEN", "another program uses the port\n")],
)
def test_a_port_in_use_is_reported_with_exit_69(
    listener: str, reason: str, configured: Callable[..., None], capfd: Captured
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        configured(**{"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0", listener: address})
        assert main(["serve"]) == 69
    assert f"alipayhk-gateway: cannot listen on {address} ({listener}): {reason}" in capfd.readouterr().err


def test_config_check_warns_of_a_port_in_use(configured: Callable[..., None], capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        configured(LISTEN="127.0.0.1:0", ADMIN_LISTEN="127.0.0.1:0", HEALTH_LISTEN=address)
        assert main(["config", "check"]) == 0
    assert capsys.readouterr().err == (
        f"alipayhk-gateway: warning: HEALTH_LISTEN: another program uses {address}, so that serve cannot "
        "start: stop it, unless it is this gateway\n"
    )


def test_traces_that_cannot_be_exported_are_a_warning(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        configured(LISTEN=f"127.0.0.1:{taken.getsockname()[1]}", ADMIN_LISTEN="127.0.0.1:0")
        assert main(["serve"]) == 69
        (risk,) = [line for line in capfd.readouterr().out.splitlines() if '"configuration risk"' in line]
        assert json.loads(risk)["cause"].startswith("OTEL_EXPORTER_OTLP_PROTOCOL is not http/protobuf")
        assert main(["config", "check"]) == 0
    assert "alipayhk-gateway: warning: OTEL_EXPORTER_OTLP_PROTOCOL is not" in capfd.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("command", [["serve"], ["config", "check"]], ids=" ".join)
def test_addresses_that_cannot_be_listened_on_are_refused_with_their_causes(
    command: list[str], workers: str, configured: Callable[..., None], capsys: Captured
) -> None:
    configured(
        LISTEN="192.0.2.1:50051",
        ADMIN_LISTEN="nohost.invalid:9464",
        HEALTH_LISTEN="a..b:1",
        ALLOW_PLAINTEXT="true",
        WORKERS=workers,
    )
    assert main(command) == 78
    heading, *reported = capsys.readouterr().err.splitlines()
    assert heading == HEADING
    listen, admin, health = reported
    assert listen == "  - LISTEN cannot be used: this is not an address of this machine"
    assert re.fullmatch(r"  - ADMIN_LISTEN cannot be used: the host name cannot be resolved \(.+\)", admin)
    assert health == "  - HEALTH_LISTEN cannot be used: this is not a host name"


@pytest.mark.parametrize(("admin", "status"), [("127.0.0.1:0", 69), ("192.0.2.1:9464", 78)])
def test_serve_is_started_again_if_only_the_resolver_gives_no_answer(
    admin: str,
    status: int,
    configured: Callable[..., None],
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try_to_bind = ports.try_to_bind

    def silent(host: str, port: int) -> None:
        if host == "gateway.internal":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        try_to_bind(host, port)

    monkeypatch.setattr(ports, "try_to_bind", silent)
    configured(LISTEN="gateway.internal:50051", ADMIN_LISTEN=admin, ALLOW_PLAINTEXT="true")
    assert main(["serve"]) == status
    heading, listen, *_ = capsys.readouterr().err.splitlines()
    cause = "the host name cannot be resolved (Temporary failure in name resolution)"
    assert (heading, listen) == (HEADING, f"  - LISTEN cannot be used: {cause}")


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]], ids=" ".join)
def test_a_missing_ledger_directory_or_key_is_reported_with_all_other_faults(
    command: list[str], configured: Callable[..., None], capsys: Captured
) -> None:
    configured(LEDGER_URL="sqlite:////nowhere/ledger.db", LEDGER_KEY_FILE="/nowhere/key", ENCRYPT="maybe")
    assert main(command) == 78
    absent = "No such file or directory (below /)"
    assert capsys.readouterr().err.splitlines() == [
        HEADING,
        "  - ENCRYPT must be true or false",
        f"  - LEDGER_URL names a file in a directory that cannot be used: {absent}",
        f"  - LEDGER_KEY_FILE cannot be read: {absent}",
    ]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_ledger_that_fails_to_open_is_reported_once_with_exit_78(
    workers: str, configured: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ledger.db").mkdir()
    listens = {f"{name}LISTEN": f"127.0.0.1:{free_port()}" for name in ("", "ADMIN_")}
    configured(**listens, LEDGER_URL=f"sqlite:///{tmp_path}/ledger.db", WORKERS=workers)
    assert main(["serve"]) == 78
    heading, fault = capfd.readouterr().err.splitlines()
    assert heading == "alipayhk-gateway: the configuration cannot be used:"
    assert f"the ledger {tmp_path}/ledger.db" in fault or "the ledger's key file" in fault


# -- keys


def test_generate_writes_a_key_pair_to_three_files(tmp_path: Path, capsys: Captured) -> None:
    directory = tmp_path / "new" / "keys"
    assert main(["keys", "generate", str(directory), "--name", "ours", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    files = {name: Path(facts[name]) for name in facts if name != "sha256"}
    assert {name: path.name for name, path in files.items()} == {
        "private_key_file": "ours.key.pem",
        "public_key_file": "ours.pub.pem",
        "public_key_base64_file": "ours.pub.b64",
    }
    private = load_private_key(files["private_key_file"])
    assert private.key_size == 2048
    for name in ("public_key_file", "public_key_base64_file"):
        assert load_public_key(files[name]).public_numbers() == private.public_key().public_numbers()
    assert facts["sha256"] == fingerprint(private.public_key())
    assert stat.S_IMODE(files["private_key_file"].stat().st_mode) == 0o600
    one_line = files["public_key_base64_file"].read_bytes()
    assert base64.b64decode(one_line, validate=False) == public_der(private.public_key())
    assert one_line.count(b"\n") == 1


@pytest.mark.parametrize("name", ["signing.key.pem", "signing.pub.b64"])
def test_a_key_is_never_overwritten(tmp_path: Path, capsys: Captured, name: str) -> None:
    path = tmp_path / name
    path.write_text("precious")
    assert main(["keys", "generate", str(tmp_path)]) == 73
    assert path.read_text() == "precious"
    assert capsys.readouterr().err == f"alipayhk-gateway: {path}: File exists\n"
    assert [file.name for file in tmp_path.iterdir()] == [name], "the pair is not half made"


def test_a_directory_that_fails_to_be_created_is_reported(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").touch()
    assert main(["keys", "generate", str(tmp_path / "file" / "keys")]) == 73
    assert "Not a directory" in capsys.readouterr().err


def test_a_full_disk_is_reported_with_the_directory(tmp_path: Path) -> None:
    # With a file size limit of 0, as on a full disk, the error of a write names no file.
    words = ["keys", "generate", str(tmp_path)]
    limited = f"ulimit -f 0; exec {sys.executable} -m service {' '.join(words)}"
    done = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, check=False)
    reported = done.stderr.splitlines()[0]  # further lines are of coverage, which also fails to write
    assert (done.returncode, reported) == (73, f"alipayhk-gateway: {tmp_path}: File too large")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", ["0", "-1", "1024", "2047", "8193", "1000000"])
def test_a_key_has_2048_to_8192_bits(bits: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["keys", "generate", str(tmp_path), f"--bits={bits}"]) == 78
    assert capsys.readouterr().err == "alipayhk-gateway: --bits must be from 2048 to 8192\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "a/", "..", ".", "", "a\0b", "a\nb"])
def test_a_key_is_generated_in_the_named_directory_only(
    name: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["keys", "generate", str(tmp_path / "keys"), "--name", name]) == 78
    fault = "--name must be a file name without a directory; DIR is where the files go"
    assert capsys.readouterr().err == f"alipayhk-gateway: {fault}\n"
    assert not list(tmp_path.iterdir())


def test_inspect_shows_no_private_value_of_a_key(ring: KeyRing, capsys: Captured) -> None:
    reported = {}
    for path, kind in (
        (ring.private, "private key"),
        (ring.public, "public key"),
        (ring.public_base64, "public key"),
    ):
        assert main(["keys", "inspect", str(path), "--json"]) == 0
        reported[path] = json.loads(capsys.readouterr().out)
        assert (reported[path]["kind"], reported[path]["bits"]) == (kind, "2048")
        assert main(["keys", "inspect", str(path)]) == 0
        text = capsys.readouterr().out
        assert text == "".join(f"{name}: {value}\n" for name, value in reported[path].items())
    assert reported[ring.public]["sha256"] == reported[ring.public_base64]["sha256"]
    assert reported[ring.public]["sha256"] == fingerprint(ring.theirs.public_key())
    shown = base64.b64decode(reported[ring.private]["public_key_base64"])
    assert shown == public_der(ring.ours.public_key())


def test_an_unusable_key_file_is_reported_with_exit_78(
    ring: KeyRing, tmp_path: Path, capsys: Captured
) -> None:
    text, curve = tmp_path / "text", tmp_path / "curve.pem"
    text.write_text("hunter2")
    curve.write_bytes(private_pem(curve_key()))
    for path, reason in (
        (tmp_path / "absent", "cannot be read: No such file or directory"),
        (text, "is neither PEM nor base64 DER"),
        (curve, "contains a key that is not an RSA key"),
        (ring.encrypted, "is encrypted with a passphrase, which is not supported"),
    ):
        assert main(["keys", "inspect", str(path)]) == 78
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"alipayhk-gateway: {path} {reason}\n")


def test_serve_accepts_generated_keys(
    configured: Callable[..., None], tmp_path: Path, capsys: Captured
) -> None:
    assert main(["keys", "generate", str(tmp_path), "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    configured(
        SIGNING_KEY_FILE=facts["private_key_file"],
        PUBLIC_KEY_FILES=f"1={facts['public_key_file']},2={facts['public_key_base64_file']}",
    )
    assert main(["config", "check"]) == 0
