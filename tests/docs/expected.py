"""The commands of the pages: the output that each must print, or the reason not to run it.

A row contains words that only its block on the page has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOT_RUN: Final = {
    "make demo": "tests/docs/reader.py starts the same demo; the gate runs make demo ONCE=1",
    "make test": "these tests are part of it; the gate runs it",
    "make setup": "the gate runs it, and these tests run in its environment",
    "make lint": "the gate runs it",
    "make stubs": "tests/callers runs it and checks its files",
    "make bench": "takes an hour; tests/callers/test_bench.py runs its parts",
    "make peers": "the gate runs it, and these tests run the tools that it installs",
    "make build": "the gate runs it",
    "createuser --pwprompt": "needs a database server; tests/scenarios start real ones",
    "createdb --owner": "the same",
    "docker build": "needs a container engine; make image builds the image",
    "docker run": "needs a container engine; make image runs the image",
    "docker stop": "needs a container engine; make image stops a container",
    "docker compose": "needs a container engine; tests/deploy runs the gateway and the sandbox of the file",
    "grpcurl -cacert": "needs a gateway at that name; tests/peers/test_envoy.py runs the same",
    "cat service.binpb": "the same",
    "kubectl create": "needs a cluster; tests/deploy checks the objects",
    "kubectl kustomize": "tests/deploy builds the same objects with kustomize",
    "kubectl apply": "needs a cluster; tests/deploy checks the objects",
    "python3 -m": "installs into /opt; the gate installs the same wheel elsewhere",
    "/opt/alipayhk-gateway/bin/python -m": "the same",
    "/opt/alipayhk-gateway/bin/alipayhk-gateway config": "the same",
    "install -m": "changes the host; tests/deploy checks the installed files",
    "install -d": "the same",
    "systemd-sysusers": "changes the host; tests/deploy runs it in another root",
    "systemd-run --pipe": "needs systemd as process 1",
    "systemctl daemon-reload": "the same",
    "systemctl enable": "the same",
}
"""The first two words of a command, and the reason not to run it."""


@dataclass(frozen=True, slots=True)
class Row:
    """The expected result of one block."""

    page: str
    words: str
    says: tuple[str, ...]
    """Patterns that all must match the output."""
    status: int = 0
    when_busy: tuple[int, ...] = ()
    """Further accepted exit statuses, for a machine too busy to generate the load."""
    stays_up: bool = False
    """Whether it keeps running during the rest of its page, after its output matches."""


GENERATOR: Final = "The generator kept up|THE GENERATOR FELL BEHIND"

ROWS: Final = (
    Row(
        "README.md",
        "readme-1",
        ("^OK: AlipayHK accepted the request.$", "result.code: SUCCESS", "tracer_id: .+"),
    ),
    Row(
        "README.md",
        "readme-2",
        (
            "^NOT_FOUND WALLET_REJECTED: ",
            "^  outcome: rejected$",
            "^  retry: new_request_id$",
            "^  result_code: USER_NOT_EXIST$",
        ),
        status=11,
    ),
    Row("README.md", "export PATH", ()),
    Row(
        "README.md",
        "describe",
        (r"alipayhk\.linkage\.v1\.LinkageService\n", "SyncLinkageRequest is a message", "request_id = 1;"),
    ),
    # grpcurl's exit status is 64 plus the gRPC code.
    Row(
        "README.md",
        '"readme-3"',
        (
            "Code: FailedPrecondition",
            '"reason": "WALLET_REJECTED"',
            '"outcome": "rejected"',
            '"retry": "never"',
            '"result_code": "PROCESS_FAIL"',
            '"request_id": "readme-3"',
        ),
        status=64 + 9,
    ),
    Row(
        "README.md",
        "doctor message",
        (r"^invalid \(json_key_order\): ", "^fix: Write the JSON once"),
        status=1,
    ),
    Row("README.md", "alipayhk-gateway --help", ("usage: alipayhk-gateway", "serve", "health")),
    Row("docs/examples.md", "example-1", ("^OK: AlipayHK accepted the request.$",)),
    Row(
        "docs/examples.md",
        "/__sandbox/requests",
        (
            '"request_id": "demo-bind-',
            r'"decrypted_body": "\{\\"requestId\\":\\"example-1\\"',
            r'"content_to_sign": "POST /sandbox/binding/sync\\nSANDBOX_CLIENT_1\.',
            '"verdict": "the signature matches; ',
        ),
    ),
    Row("docs/settings.md", "config example", ("^# Address of the gRPC server;", '^base_url = ""$')),
    Row("docs/examples.md", '"example-2"', ('"status": ?"S"',)),
    Row(
        "docs/operations.md",
        "keys inspect",
        (
            r"public_key_base64_file: my-keys/signing\.pub\.b64",
            "kind: public key",
            r"sha256: (.*)\n(?s:.*)sha256: \1",
        ),
    ),
    Row(
        "docs/operations.md",
        "ledger --help",
        ("list", "show", "resolve", "export", "init", "backup", "restore"),
    ),
    Row(
        "docs/troubleshooting.md",
        "docs/samples/response.json",
        (
            r"^invalid \(json_key_order\): The signature covers members in alphabetical order\.$",
            "^fix: Write the JSON once, in one order, and sign and send these same bytes\\.$",
        ),
        status=1,
    ),
    Row(
        "docs/troubleshooting.md",
        "docs/samples/response.http",
        (r"^invalid \(trailing_newline\): ", r"\{\+\\n\+\}$"),
        status=1,
    ),
    Row("docs/troubleshooting.md", "docs/samples/request.curl", ('"cause": "path"',), status=1),
    Row("docs/troubleshooting.md", "keys inspect", ("^sha256: [0-9a-f]{64}$",)),
    Row(
        "docs/sandbox.md",
        "keys generate",
        (r"sandbox-keys/merchant\.key\.pem", r"sandbox-keys/alipayhk\.pub\.pem"),
    ),
    Row(
        "docs/sandbox.md",
        "alipayhk-gateway sandbox",
        (r"^sandbox AlipayHK listening on http://127\.0\.0\.1:8089$",),
        stays_up=True,
    ),
    Row(
        "docs/backup-and-restore.md",
        "ledger init\n",
        ("^created the ledger .*/my-ledger.db without",),
    ),
    Row("docs/backup-and-restore.md", "ledger backup", ("^wrote .*/my-backup.db: 0 requests, 0 of them",)),
    Row(
        "docs/backup-and-restore.md",
        "ledger restore my-backup.db",
        (
            "^the ledger .*/my-ledger.db has 0 requests",
            "^it does not know the request ids",
            "^kept the replaced file as",
        ),
    ),
    Row(
        "docs/backup-and-restore.md",
        "ledger restore --json",
        ('"unknown_from": null', '"moved_aside": \\[\\]'),
    ),
    Row("docs/backup-and-restore.md", "ledger init --new", ("^created the ledger .*/my-ledger.db",)),
    Row("docs/sandbox.md", "config check", ("^BASE_URL = http://127.0.0.1:8089$", "^WORKERS = 1$")),
    Row(
        "docs/sandbox.md",
        "doctor live",
        (
            r"^ok +keys +SyncLinkage: our signing key: version 1, 2048 bits, SHA-256 [0-9a-f]{64}$",
            r"^ok +TCP +http://127\.0\.0\.1:8089: connected to 127\.0\.0\.1:8089$",
            r"^ok +clock +http://127\.0\.0\.1:8089: the server's clock is \d+ s ",
            r"^ok +call +SyncLinkage: AlipayHK answers F PARAM_ILLEGAL, as it should",
            r"^ok +call +BindAccount: AlipayHK answers F PARAM_ILLEGAL, as it should",
        ),
    ),
    Row("docs/sandbox.md", "serve --config gateway.toml", ('"event": "gateway started"',), stays_up=True),
    Row("docs/sandbox.md", "mkdir captures", ()),
    Row(
        "docs/sandbox.md",
        "+BAD_SIGNATURE",
        ("^INTERNAL RESPONSE_SIGNATURE_INVALID: ", "^  outcome: unknown$", "^  retry: operator$"),
        status=12,
    ),
    Row("docs/sandbox.md", "doctor message", ("^invalid \\(wrong_key\\): ", "^fix: "), status=1),
    Row("docs/sandbox.md", "openssl dgst", (r'"resultMessage":".*\(trailing_newline\)',)),
    Row("docs/sandbox.md", "/__sandbox/answers", ('"waiting": 1',)),
    Row("docs/sandbox.md", "openssl req", ()),
    Row("docs/sandbox.md", "second-ledger.db", ('"event": "gateway started"',), stays_up=True),
    Row("docs/sandbox.md", "--server-name gateway", ("^OK: ",)),
    Row("docs/clients/python.md", "one_call.py 127.0.0.1:50051 2160000000000001\n", ("^OK$",)),
    Row(
        "docs/clients/python.md",
        "one_call.py 127.0.0.1:50051 2160000000000001+USER_NOT_EXIST",
        ("^rejected WALLET_REJECTED new_request_id$",),
        status=1,
    ),
    Row(
        "docs/clients/python.md", "python-1", ("^OK: AlipayHK accepted the request.$", "  result.status: S")
    ),
    Row(
        "docs/clients/python.md",
        "python-2",
        ('"outcome": "rejected"', '"reason": "WALLET_REJECTED"', '"result_code": "PROCESS_FAIL"'),
        status=11,
    ),
    Row("docs/clients/python.md", "test_errors.py", (r"\d+ passed",)),
    Row(
        "docs/load.md",
        "--rate 50 --duration 5s",
        ("due 250 ", "SyncLinkage  plain +OK", GENERATOR),
        when_busy=(3,),
    ),
    Row(
        "docs/load.md",
        "--closed -c 8",
        ("closed loop, 8 callers", "Closed loop: callers wait"),
        when_busy=(3,),
    ),
    Row(
        "docs/load.md",
        "--profile ramp:10..60/3s",
        ("poisson arrivals, 10 to 60/s", "successes, latency"),
        when_busy=(3,),
    ),
    Row(
        "docs/load.md",
        "--encrypted-target",
        (r"STALE_BIZ_TIME +not_sent", r"passed  --verify: \d+ request ids, all outcomes confirmed"),
        when_busy=(3,),
    ),
    Row(
        "docs/load.md",
        "--max-p99 2s",
        ("passed  --max-p99", "passed  --max-error-rate: 0 of 120"),
        when_busy=(3,),
    ),
    Row(
        "docs/load.md",
        "--compare base.json",
        ("(passed|FAILED)  --compare p99", "passed  --compare errors"),
        when_busy=(1, 3),
    ),
    Row("docs/clients/go.md", "example 127.0.0.1:50051 2160000000000001\n", ("^OK$",)),
    Row(
        "docs/clients/go.md",
        "2160000000000001+USER_NOT_EXIST",
        ("^rejected WALLET_REJECTED new_request_id$",),
        status=1,
    ),
    Row("docs/clients/go.md", "buf generate", ()),
    Row(
        "docs/clients/go.md",
        "./linkage ./linkagev1",
        (r"^ok\s+linkage\.alipayhk/go/linkage\s", r"^ok\s+linkage\.alipayhk/go/linkagev1\s"),
    ),
    Row("docs/clients/go.md", "TestScenarios", (r"^ok\s+linkage\.alipayhk/go/scenarios\s",)),
    Row("docs/clients/go.md", "TestStorm", (r"^ok\s+linkage\.alipayhk/go/scenarios\s",)),
    Row("docs/clients/node.md", "clients/node ci", (r"added \d+ packages",)),
    Row("docs/clients/node.md", "50051 2160000000000001\n", ("^OK$",)),
    Row(
        "docs/clients/node.md",
        "+USER_NOT_EXIST",
        ("^rejected WALLET_REJECTED new_request_id$",),
        status=1,
    ),
    Row("docs/clients/node.md", "npm pack", (r"alipayhk-linkage-1\.0\.0\.tgz",)),
    Row("docs/clients/node.md", "build/node-service install", (r"added \d+ packages",)),
    Row("docs/clients/node.md", "buf generate", ()),
    Row("docs/clients/node.md", "test:unit", (r"pass \d+$", "fail 0$")),
    Row("docs/clients/node.md", "test:scenarios", (r"pass \d+$", "fail 0$")),
    Row("docs/clients/node.md", "test:storm", ("fail 0$",)),
    Row("docs/clients/java.md", "clients/java install", ()),
    Row("docs/clients/java.md", "127.0.0.1:50051 2160000000000001\n", ("^OK$",)),
    Row(
        "docs/clients/java.md",
        "2160000000000001+USER_NOT_EXIST",
        ("^rejected WALLET_REJECTED new_request_id$",),
        status=1,
    ),
    Row("docs/clients/java.md", "-Dtest=Scenarios", (r"Tests run: \d+, Failures: 0, Errors: 0",)),
)


def not_run(command: str) -> bool:
    """Return whether a command is in NOT_RUN."""
    return " ".join(command.split()[:2]) in NOT_RUN
