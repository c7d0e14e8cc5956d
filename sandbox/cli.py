"""The command `sandbox`: flags in, one line out, a clean stop."""

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
    """Add the sandbox's flags; what they hold is checked in `run`, all faults at once."""
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
        sys.stderr.write(f"the sandbox cannot start:\n{error}\n")
        return EX_CONFIG
    except (OSError, UnicodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "the host is no name"
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
    ("listen", "127.0.0.1:8089", "host and port; port 0 lets the system choose"),
    *((api.path_flag, api.path, api.path_help) for api in APIS.values()),
    ("client-id", None, "the merchant's client id (required)"),
    ("private-key-file", None, "AlipayHK's own key: signs answers, unwraps AES keys (required)"),
    ("key-version", "1", "the version of that key"),
    ("merchant-public-key-files", None, "the merchant's keys by version, 1=path,2=path (required)"),
    ("function", "alipay.intl.merchant.account.bind", "the envelope's function"),
    ("version", "1.0.0", "the envelope's version"),
    ("aes-mode", "ECB", "how encrypted bodies are encrypted: ECB or CBC"),
    ("aes-bits", "256", "the length of an AES key: 128 or 256"),
    ("rsa-padding", "PKCS1V15", "how an AES key is wrapped: PKCS1V15 or OAEP_SHA256"),
    ("encryption-key-version", "1", "which of the merchant's keys wraps the AES key of an answer"),
    ("encryption-content-type", JSON_CONTENT_TYPE, "the Content-Type of an encrypted answer"),
    ("tls-cert-file", None, "with --tls-key-file: serve HTTPS"),
    ("tls-key-file", None, "the certificate's key"),
)
