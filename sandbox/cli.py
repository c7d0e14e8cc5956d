"""The command `sandbox`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import Final

from clients.alipayhk.wire.messages import JSON_CONTENT_TYPE

from .apis import APIS
from .options import Options, OptionsError, options_of
from .server import running

EX_CONFIG: Final = 78


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sandbox's flags; `run` checks their values and reports all faults together."""
    for flag, default, says in FLAGS:
        shown = f" (default: {default})" if default else ""
        parser.add_argument(f"--{flag}", default=default, help=f"{says}{shown}", metavar="…")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status."""
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr, level=logging.INFO)
    try:
        options = options_of(args)
        asyncio.run(_serve(options))
    except OptionsError as error:
        sys.stderr.write(f"the sandbox cannot start: fix these flags\n{error}\n")
        return EX_CONFIG
    except (OSError, UnicodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "the host is not a valid name"
        sys.stderr.write(f"the sandbox cannot listen on {args.listen}: {cause}\n")
        return EX_CONFIG
    return 0


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options) as url:
        sys.stdout.write(f"sandbox AlipayHK listening on {url}\n")
        sys.stdout.flush()
        await stop.wait()


FLAGS: Final = (
    ("listen", "127.0.0.1:8089", "host and port to listen on; with port 0 the system chooses a port"),
    *((api.path_flag, api.path, api.path_help) for api in APIS.values()),
    ("client-id", None, "the merchant's client id (required)"),
    (
        "private-key-file",
        None,
        "AlipayHK's private key, which signs responses and unwraps AES keys (required)",
    ),
    ("key-version", "1", "the version of AlipayHK's key"),
    ("merchant-public-key-files", None, "the merchant's public keys by version: 1=path,2=path (required)"),
    *(
        (api.function_flag, api.function, f"the function in the head of {api.name}'s envelope")
        for api in APIS.values()
        if api.function_flag
    ),
    ("version", "1.0.0", "the version in the envelope's head"),
    ("aes-mode", "ECB", "the AES mode of encrypted bodies: ECB or CBC"),
    ("aes-bits", "256", "the length of AES keys in bits: 128 or 256"),
    ("rsa-padding", "PKCS1V15", "the RSA padding that wraps AES keys: PKCS1V15 or OAEP_SHA256"),
    (
        "encryption-key-version",
        "1",
        "the version of the merchant's key that wraps the AES key of a response",
    ),
    ("encryption-content-type", JSON_CONTENT_TYPE, "the Content-Type of an encrypted response"),
    ("tls-cert-file", None, "the certificate (PEM); together with --tls-key-file: serve HTTPS"),
    ("tls-key-file", None, "the private key of the certificate (PEM)"),
)
