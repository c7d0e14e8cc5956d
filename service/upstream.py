"""The endpoint of each AlipayHK API, and the transport to them, from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from clients.alipayhk.api import Api
from clients.alipayhk.tls import context_of
from clients.alipayhk.transport import Transport
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption, Endpoint
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned

from .config.files import KeyFile, path_of
from .config.settings import Settings

CONNECT_TIMEOUT_S: Final = 2.0


def endpoints_of(settings: Settings) -> Mapping[str, Endpoint]:
    """Return the endpoint of each API of AlipayHK, by the API's name."""
    return {api: ENDPOINTS[api](settings) for api in Api}


def transport_of(settings: Settings) -> Transport:
    """Make the transport; needs a running event loop."""
    return Transport(
        timeout_s=settings.upstream_timeout_s,
        connect_timeout_s=min(CONNECT_TIMEOUT_S, settings.upstream_timeout_s),
        tls=context_of(path_of(settings.upstream_ca_file)),
        proxy=settings.upstream_proxy,
        reuse_connections=settings.upstream_connections == "reuse",
    )


def _sync_linkage(settings: Settings) -> Endpoint:
    return Endpoint(
        api=Api.SYNC_LINKAGE,
        protocol=HeaderSigned(
            encryption=Encryption(
                profile=EncryptionProfile(
                    aes_mode=settings.encryption_aes_mode,
                    aes_bits=settings.encryption_aes_bits,
                    rsa_padding=settings.encryption_rsa_padding,
                ),
                key_version=settings.encryption_key_version,
                content_type=settings.encryption_content_type,
            ),
            encrypt_requests=settings.encrypt,
            encrypted_answers_only=settings.require_encrypted_response,
        ),
        base_url=settings.base_url,
        path=settings.sync_linkage.path,
        client_id=settings.client_id,
        keys=_keys(settings),
        idempotent=True,
        response_time_window_s=settings.response_time_window_s,
    )


def _bind_account(settings: Settings) -> Endpoint:
    return Endpoint(
        api=Api.BIND_ACCOUNT,
        protocol=EnvelopeSigned(
            function=settings.bind_account.function, version=settings.bind_account.version
        ),
        base_url=settings.bind_account.base_url or settings.base_url,
        path=settings.bind_account.path,
        client_id=settings.bind_account.client_id or settings.client_id,
        keys=_keys(settings, settings.bind_account.signing_key_file),
        idempotent=settings.bind_account.idempotent,
        response_time_window_s=settings.response_time_window_s,
    )


def _keys(settings: Settings, own: KeyFile[Any] | None = None) -> Keys:
    """Return the keys of both sides; `own` is our key for an API that has one of its own."""
    version = settings.signing_key_version
    ours = {version: own} if own else settings.signing_keys
    return Keys(
        signing=ours[version].key,
        signing_version=version,
        verifying={version: file.key for version, file in settings.public_key_files.items()},
        decrypting={version: file.key for version, file in (settings.decryption_key_files or ours).items()},
    )


ENDPOINTS: Final[Mapping[Api, Callable[[Settings], Endpoint]]] = {
    Api.SYNC_LINKAGE: _sync_linkage,
    Api.BIND_ACCOUNT: _bind_account,
}
