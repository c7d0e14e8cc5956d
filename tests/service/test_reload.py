"""Settings are read again while the gateway runs: each group is replaced whole, or stays as it is."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from clients.alipayhk.wire.crypto import sign, verify
from clients.alipayhk.wire.keys import fingerprint
from service.config import reload as module
from service.config.reading import read_values
from service.config.reload import FAILED, Reload, Reloader
from service.config.settings import Settings
from service.credentials.callers import Name
from service.server.tls import start_faults
from tests.certificates import private_pem, public_pem
from tests.service.fakes import LogStream
from tests.service.files import KeyRing, TlsFiles

LOYALTY: Final = '[callers.loyalty]\nsan = ["loyalty.corp"]\nmethods = ["SyncLinkage"]\n'
WALLET: Final = LOYALTY.replace("loyalty", "wallet")
CODES: Final = '[BindAccount]\nALREADY_BOUND = "ALREADY_EXISTS"\n'
SMALL: Final = rsa.generate_private_key(65537, 1024)


class Site:
    """The configuration file and the files that it names, in one directory, and what reads them."""

    def __init__(self, directory: Path, environ: dict[str, str], ring: KeyRing, tls: TlsFiles) -> None:
        self.directory, self.ring, self.tls = directory, ring, tls
        self.config: dict[str, str | int] = {
            "signing_key_files": self.names(1, "own"),
            "public_key_files": self.names(1, "theirs"),
            "tls_cert_file": str(directory / "chain.pem"),
            "tls_key_file": str(directory / "key.pem"),
            "tls_client_ca_file": str(directory / "ca.pem"),
            "callers_file": str(directory / "callers.toml"),
            "result_codes_file": str(directory / "codes.toml"),
        }
        self.write("own-1", ring.private.read_bytes())
        self.write("theirs-1", ring.public.read_bytes())
        self.write("chain.pem", tls.certificate.read_bytes())
        self.write("key.pem", tls.key.read_bytes())
        self.write("ca.pem", tls.ca.read_bytes())
        self.write("callers.toml", LOYALTY)
        self.write("codes.toml", CODES)
        self.set()
        not_in_file = ("ALIPAYHK_SIGNING_KEY_FILE", "ALIPAYHK_PUBLIC_KEY_FILES")
        self.environ = {name: text for name, text in environ.items() if name not in not_in_file}
        self.reloader = self.started()

    def started(self, **environ: str) -> Reloader:
        """Return what a gateway that starts now has read."""
        texts = self.environ | {f"ALIPAYHK_{name}": text for name, text in environ.items()}
        return Reloader(texts, self.directory / "gateway.toml", certificate_faults=start_faults)

    def names(self, count: int, kind: str) -> str:
        """Return a setting that names keys by version."""
        return ",".join(f"{each}={self.directory}/{kind}-{each}" for each in range(1, count + 1))

    def write(self, name: str, data: str | bytes) -> None:
        """Replace a file, as `mv` does."""
        new = self.directory / f"{name}.new"
        new.touch(0o600)
        new.write_bytes(data.encode() if isinstance(data, str) else data)
        new.rename(self.directory / name)

    def set(self, **settings: str | int) -> None:
        """Write the configuration file with more settings."""
        self.config |= settings
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in self.config.items()]
        self.write("gateway.toml", "".join(lines))

    def look(self, *, asked: bool = False) -> Reload | None:
        """Let the gateway look at its files; return what it uses from then on, if that has changed."""
        used: list[Reload] = []
        self.reloader.look(used.append, asked=asked)
        return used[0] if used else None

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self.reloader.current.settings


@pytest.fixture
def site(tmp_path: Path, environ: dict[str, str], ring: KeyRing, tls: TlsFiles) -> Site:
    """Return a configuration with every group."""
    return Site(tmp_path, environ, ring, tls)


# -- good


def next_certificate(site: Site, other_tls: TlsFiles) -> dict[str, Any]:
    site.write("chain.pem", other_tls.certificate.read_bytes())
    site.write("key.pem", other_tls.key.read_bytes())
    site.write("ca.pem", other_tls.ca.read_bytes())
    return {"group": "server certificate"}


def next_own_key(site: Site, _: TlsFiles) -> dict[str, Any]:
    site.write("own-2", site.ring.other_private.read_bytes())
    site.set(signing_key_files=site.names(2, "own"), signing_key_version="2")
    sha256 = f"{fingerprint(site.ring.other)},{fingerprint(site.ring.ours)}"
    return {"group": "own keys", "signing_key_version": "2", "version": "2,1", "sha256": sha256}


def next_key_of_theirs(site: Site, _: TlsFiles) -> dict[str, Any]:
    site.write("theirs-2", site.ring.other_public.read_bytes())
    site.set(public_key_files=site.names(2, "theirs"))
    sha256 = f"{fingerprint(site.ring.other)},{fingerprint(site.ring.theirs)}"
    return {"group": "AlipayHK's keys", "version": "2,1", "sha256": sha256}


def next_callers(site: Site, _: TlsFiles) -> dict[str, Any]:
    site.write("callers.toml", LOYALTY + WALLET)
    return {"group": "callers", "count": 2}


def next_result_codes(site: Site, _: TlsFiles) -> dict[str, Any]:
    site.write("codes.toml", "")
    return {"group": "result codes", "count": 0}


def next_log_level(site: Site, _: TlsFiles) -> dict[str, Any]:
    site.set(log_level="debug")
    return {"group": "log level", "log_level": "debug"}


GOOD: Final[dict[str, Callable[[Site, TlsFiles], dict[str, Any]]]] = {
    "server certificate": next_certificate,
    "own keys": next_own_key,
    "AlipayHK's keys": next_key_of_theirs,
    "callers": next_callers,
    "result codes": next_result_codes,
    "log level": next_log_level,
}


@pytest.mark.parametrize("group", GOOD)
def test_a_valid_group_is_replaced_and_logged(
    site: Site, other_tls: TlsFiles, log_lines: LogStream, group: str
) -> None:
    before, expected = site.settings, GOOD[group](site, other_tls)
    reload = site.look()
    assert reload == site.reloader.current == (site.settings, True)
    assert site.settings != before
    lines = [{name: line.get(name) for name in expected} for line in log_lines.lines]
    assert lines == [expected]
    assert all("dropped" not in line for line in log_lines.lines)
    assert site.look() is None


def test_every_group_is_logged_on_its_own(site: Site, other_tls: TlsFiles, log_lines: LogStream) -> None:
    expected = [change(site, other_tls)["group"] for change in GOOD.values()]
    assert site.look() is not None
    assert [line["group"] for line in log_lines.of("configuration reloaded")] == expected
    line = log_lines.of("configuration reloaded")[0]
    assert int(line["serial"], 16)
    assert line["expires"].endswith("Z")


def test_values_in_use_are_those_that_were_read(site: Site, other_tls: TlsFiles) -> None:
    for change in GOOD.values():
        change(site, other_tls)
    site.look()
    settings = site.settings
    assert settings.signing_keys["2"].key.private_numbers() == site.ring.other.private_numbers()
    assert settings.tls_cert_file is not None
    assert settings.tls_cert_file.data == other_tls.certificate.read_bytes()
    assert settings.callers_file is not None
    assert settings.callers_file.find([Name("DNS", "wallet.corp")])
    assert settings.log_level == "debug"
    assert settings == site.started().current.settings


# -- bad


BAD: Final[dict[str, tuple[str, str, str, Callable[[Site], None]]]] = {
    "key of another certificate": (
        "server certificate", "TLS_KEY_FILE", "is not the key of TLS_CERT_FILE",
        lambda site: site.write("key.pem", site.tls.other_key.read_bytes()),
    ),
    "certificate that is cut off": (
        "server certificate", "TLS_CERT_FILE", "is incomplete or was cut off",
        lambda site: site.write("chain.pem", site.tls.certificate.read_bytes()[:-30]),
    ),
    "client CA that is garbage": (
        "server certificate", "TLS_CLIENT_CA_FILE", "contains no valid PEM certificate",
        lambda site: site.write("ca.pem", "garbage"),
    ),
    "own key that is garbage": (
        "own keys", "SIGNING_KEY_FILES", "version 1 is neither PEM nor base64 DER",
        lambda site: site.write("own-1", "garbage!"),
    ),
    "own key that is too small": (
        "own keys", "SIGNING_KEY_FILES", "version 1 contains a key of 1024 bits",
        lambda site: site.write("own-1", private_pem(SMALL)),
    ),
    "own key that is public": (
        "own keys", "SIGNING_KEY_FILES", "version 1 contains a public key",
        lambda site: site.write("own-1", site.ring.public.read_bytes()),
    ),
    "own key that is missing": (
        "own keys", "SIGNING_KEY_FILES", "version 1 cannot be read: No such file",
        lambda site: (site.directory / "own-1").unlink(),
    ),
    "version without a key": (
        "own keys", "SIGNING_KEY_VERSION", "is not a version in SIGNING_KEY_FILES",
        lambda site: site.set(signing_key_version="2"),
    ),
    "key of theirs that is too small": (
        "AlipayHK's keys", "PUBLIC_KEY_FILES", "version 1 contains a key of 1024 bits",
        lambda site: site.write("theirs-1", public_pem(SMALL.public_key())),
    ),
    "key of theirs that is private": (
        "AlipayHK's keys", "PUBLIC_KEY_FILES", "version 1 contains a private key",
        lambda site: site.write("theirs-1", site.ring.private.read_bytes()),
    ),
    "callers that are not TOML": (
        "callers", "CALLERS_FILE", "is not TOML", lambda site: site.write("callers.toml", "[callers"),
    ),
    "caller with an e-mail name": (
        "callers", "CALLERS_FILE", "an e-mail address",
        lambda site: site.write("callers.toml", LOYALTY.replace("loyalty.corp", "a@corp")),
    ),
    "result code with a code that is not allowed": (
        "result codes", "RESULT_CODES_FILE", "ALREADY_BOUND must be one of",
        lambda site: site.write("codes.toml", CODES.replace("ALREADY_EXISTS", "UNAVAILABLE")),
    ),
    "unknown log level": (
        "log level", "LOG_LEVEL", "must be one of debug, info", lambda site: site.set(log_level="loud"),
    ),
    "configuration that is not TOML": (
        "--config", "--config", "is not TOML", lambda site: site.write("gateway.toml", "[a"),
    ),
    "unknown setting": (
        "other settings", "HUNTER", "is not a setting", lambda site: site.set(hunter=1),
    ),
    "invalid setting that needs a restart": (
        "other settings", "WORKERS", "must be a whole number", lambda site: site.set(workers=0),
    ),
}  # fmt: skip
"""What is wrong: its group, the setting that the log names, a part of the cause, and how it is made."""


@pytest.mark.parametrize("row", BAD)
def test_an_invalid_group_stays_as_it_was_and_is_logged(site: Site, log_lines: LogStream, row: str) -> None:
    group, setting, cause, spoil = BAD[row]
    before = site.settings
    spoil(site)
    assert site.look() == Reload(before, success=False)
    assert site.settings is before
    (line,) = log_lines.lines
    assert (line["level"], line["event"]) == ("error", FAILED)
    assert (line["group"], line["setting"]) == (group, setting)
    assert cause in line["cause"]
    is_of_files = setting not in {"SIGNING_KEY_VERSION", "LOG_LEVEL", "HUNTER", "WORKERS"}
    assert (str(site.directory) in line.get("file", "")) == is_of_files
    assert site.look() is None
    assert log_lines.lines == [line], "it is logged once"


def test_an_invalid_group_does_not_keep_others_from_being_replaced(
    site: Site, other_tls: TlsFiles, log_lines: LogStream
) -> None:
    changes = {group: change for group, change in GOOD.items() if group != "server certificate"}
    for change in changes.values():
        change(site, other_tls)
    site.write("key.pem", other_tls.key.read_bytes())
    reload = site.look()
    assert reload is not None
    assert not reload.success
    assert [line["group"] for line in log_lines.of("configuration reloaded")] == list(changes)
    assert [line["group"] for line in log_lines.of(FAILED)] == ["server certificate"]


def test_a_pair_whose_second_file_comes_later_is_replaced_then(
    site: Site, other_tls: TlsFiles, log_lines: LogStream
) -> None:
    site.write("chain.pem", other_tls.certificate.read_bytes())
    assert site.look() == (site.settings, False)
    site.write("key.pem", other_tls.key.read_bytes())
    assert site.look() == (site.settings, True)
    assert [line["event"] for line in log_lines.lines] == [FAILED, "configuration reloaded"]


def test_a_file_that_is_restored_ends_the_failure(site: Site, log_lines: LogStream) -> None:
    before = site.settings
    site.write("callers.toml", "[callers")
    site.look()
    site.write("callers.toml", LOYALTY)
    assert site.look() == (before, True)
    assert [line["event"] for line in log_lines.lines] == [FAILED, "configuration unchanged"]


def test_a_failed_reading_is_repeated_once_without_a_change(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of a file do not show a write within one step of the clock."""
    site.write("callers.toml", "[callers")
    assert site.look() is not None
    monkeypatch.setattr(module, "read_values", read := Counted(read_values))
    for _ in range(3):
        assert site.look() is None
    assert read.count == 1


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.count, self._function = 0, function

    def __call__(self, *arguments: Any) -> Any:
        """Count a call."""
        self.count += 1
        return self._function(*arguments)


def test_an_unexpected_error_is_logged_without_its_text(
    site: Site, log_lines: LogStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(module, "faults_between", fail)
    site.write("callers.toml", WALLET)
    assert site.look() == (site.settings, False)
    (line,) = log_lines.lines
    assert (line["event"], line["error_class"]) == (FAILED, "RuntimeError")
    assert "hunter2" not in log_lines.getvalue()


def test_a_secret_in_place_of_a_path_is_not_logged(site: Site, log_lines: LogStream) -> None:
    site.set(callers_file="hunter2", signing_key_files="1=hunter2")
    assert site.look() is not None
    assert [line["group"] for line in log_lines.of(FAILED)] == ["own keys", "callers"]
    assert "hunter2" not in log_lines.getvalue()


# -- what is noticed


def test_a_link_to_another_directory_is_a_change(site: Site, log_lines: LogStream) -> None:
    """Kubernetes and cert-manager replace the link `..data`; the paths of the files stay the same."""
    old, new = site.directory / "..1", site.directory / "..2"
    for directory, callers in ((old, LOYALTY), (new, LOYALTY + WALLET)):
        directory.mkdir()
        (directory / "callers.toml").write_text(callers)
    (site.directory / "..data").symlink_to(old.name)
    (site.directory / "callers.toml").unlink()
    (site.directory / "callers.toml").symlink_to("..data/callers.toml")
    site.reloader = site.started()
    assert site.look() is None
    (site.directory / "..data_tmp").symlink_to(new.name)
    (site.directory / "..data_tmp").rename(site.directory / "..data")
    assert site.look() is not None
    assert [line["count"] for line in log_lines.of("configuration reloaded")] == [2]


def test_a_file_that_is_written_in_place_is_a_change(site: Site, log_lines: LogStream) -> None:
    path = site.directory / "callers.toml"
    path.write_text(WALLET.ljust(len(LOYALTY)))
    times = path.stat().st_mtime_ns
    assert site.look() is not None
    path.write_text(LOYALTY.ljust(len(LOYALTY)))
    os.utime(path, ns=(times, times))
    assert site.look() is not None, "size and time are the same"


def test_only_an_operator_makes_unchanged_files_be_read(
    site: Site, log_lines: LogStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_values", read := Counted(read_values))
    assert site.look() is None
    assert (read.count, log_lines.lines) == (0, [])
    assert site.look(asked=True) is None
    assert (read.count, [line["event"] for line in log_lines.lines]) == (1, ["configuration unchanged"])


def test_an_operator_who_asks_again_gets_the_failure_again(site: Site, log_lines: LogStream) -> None:
    site.write("callers.toml", "[callers")
    for asked in (False, True, True):
        site.look(asked=asked)
    assert [line["event"] for line in log_lines.lines] == [FAILED] * 3


# -- what is not replaced


def test_settings_that_need_a_restart_are_named_and_keep_their_values(
    site: Site, log_lines: LogStream
) -> None:
    before = site.settings
    site.set(listen="127.0.0.1:1", max_in_flight=7)
    assert site.look() is None
    assert site.settings is before
    (line,) = log_lines.lines
    assert (line["event"], line["setting"]) == ("restart needed", "LISTEN, MAX_IN_FLIGHT")


def test_files_that_need_a_restart_are_named_and_not_used(
    site: Site, log_lines: LogStream, other_tls: TlsFiles
) -> None:
    site.write("upstream.pem", site.tls.ca.read_bytes())
    site.write("ledger.key", base64.b64encode(bytes(32)))
    site.write("recipient", site.ring.public.read_bytes())
    site.set(
        upstream_ca_file=str(site.directory / "upstream.pem"),
        ledger_key_file=str(site.directory / "ledger.key"),
        capture_dir=str(site.directory),
        capture_recipient_file=str(site.directory / "recipient"),
    )
    site.reloader = site.started()
    before = site.settings
    site.write("upstream.pem", other_tls.ca.read_bytes())
    site.write("ledger.key", base64.b64encode(bytes(range(32))))
    site.write("recipient", site.ring.other_public.read_bytes())
    assert site.look() is None
    assert site.settings is before
    (line,) = log_lines.lines
    assert (line["event"], line["setting"]) == (
        "restart needed",
        "UPSTREAM_CA_FILE, LEDGER_KEY_FILE, CAPTURE_RECIPIENT_FILE",
    )


@pytest.mark.parametrize(
    "names", [("tls_client_ca_file", "callers_file"), ("tls_cert_file", "tls_key_file")]
)
def test_tls_and_client_certificates_are_not_turned_off(
    site: Site, log_lines: LogStream, names: tuple[str, str]
) -> None:
    for name in names:
        del site.config[name]
    site.set()
    site.look()
    lines = log_lines.of("restart needed")
    assert [names[0].upper() in line["setting"] for line in lines] == [True]
    assert site.settings.tls_cert_file is not None
    assert site.settings.tls_client_ca_file is not None


def test_a_setting_of_the_file_that_the_environment_overrides_is_named(
    site: Site, log_lines: LogStream
) -> None:
    site.reloader = site.started(LOG_LEVEL="warning")
    site.set(log_level="debug")
    assert site.look() is None
    (line,) = log_lines.lines
    assert (line["event"], line["setting"]) == ("settings overridden by the environment", "LOG_LEVEL")


def test_a_new_risk_is_logged(site: Site, log_lines: LogStream) -> None:
    site.write("theirs-1", public_pem(site.ring.ours.public_key()))
    assert site.look() == (site.settings, True)
    (line,) = log_lines.of("configuration risk")
    assert "is our own public key" in line["cause"]


# -- workers


def test_settings_are_the_same_after_they_were_passed_to_a_worker(site: Site, ring: KeyRing) -> None:
    site.set(bind_account_signing_key_file=str(ring.other_private))
    site.look()
    passed = pickle.loads(pickle.dumps(site.reloader.current))
    assert passed == site.reloader.current
    key = passed.settings.signing_keys["1"].key
    assert verify(ring.ours.public_key(), sign(key, b"content"), b"content")
    assert b"PRIVATE" not in repr(passed).encode()
