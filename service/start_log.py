"""What a gateway logs when it has started: its version, its configuration and its keys."""

from __future__ import annotations

from pathlib import Path

from .config.settings import Settings
from .ledger.levels import place_of
from .telemetry.logs import log
from .version import commit, gateway_version


def log_start(settings: Settings, listen: str, config_file: Path | None) -> None:
    """Log the keys, whose fingerprints an operator compares in a rotation, and how the gateway serves."""
    signing = settings.signing_keys[settings.signing_key_version]
    log.info("signing key loaded", version=settings.signing_key_version, sha256=signing.sha256)
    for key_version, file in settings.public_key_files.items():
        log.info("AlipayHK public key loaded", version=key_version, sha256=file.sha256)
    members = {
        "version": gateway_version(),
        "commit": commit(),
        "listen": listen,
        "admin_listen": str(settings.admin_listen),
        "health_listen": settings.health_listen and str(settings.health_listen),
        "tls": _tls(settings),
        "callers": settings.callers_file and len(set(settings.callers_file.by_name.values())),
        "config_file": config_file and str(config_file.absolute()),
        "ledger": place_of(settings.ledger_url),
        "workers": settings.workers,
    }
    log.info("gateway started", **{name: value for name, value in members.items() if value is not None})


def _tls(settings: Settings) -> str:
    if settings.tls_cert_file is None:
        return "off"
    return "on" if settings.tls_client_ca_file is None else "mutual"
