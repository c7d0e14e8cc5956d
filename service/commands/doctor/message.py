"""`alipayhk-gateway doctor message`: say why the signature of one message does not verify.

Exit status: 0 it verifies, 1 it does not, 78 the input cannot be used, 64 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from clients.alipayhk.captured import is_capture
from clients.alipayhk.diagnosis import ROWS
from clients.alipayhk.diagnosis.diagnose import Diagnosis, Verdict, diagnose
from clients.alipayhk.regular_file import NOT_REGULAR, open_regular

from ...config.settings import SettingsError
from ..exit_codes import EX_CONFIG, EX_USAGE, fail
from ..options import refuse
from .capture_file import exchange_of_capture
from .curl import exchange_of_curl, is_curl
from .exchange import MESSAGES, PROTOCOLS, Exchange, Unusable, exchange_of, json_value
from .har import exchange_of_har, is_har
from .http_text import exchange_of_http, is_http
from .knowledge import Knowledge, knowledge_of
from .refusals import HINTS, SIGNATURE_CODES
from .report import as_json, as_text
from .share import write_share

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
NOT_VALID: Final = 1
_ROWS: Final = {protocol.name: row for protocol, row in ROWS.items()}


def configure(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "message",
        help="say why the signature of a message does not verify",
        description="FILE has one message: an exchange as JSON, a raw HTTP message, a HAR file, a curl"
        " command or a capture of the gateway. The text output masks values; --json has the exact contents,"
        " which are personal data.",
    )
    parser.add_argument("file", metavar="FILE", help="the message's file; - is standard input")
    parser.add_argument("--public-key-files", metavar="1=A,2=B", help="the signer's public keys by version")
    parser.add_argument(
        "--own-key-file",
        type=Path,
        metavar="FILE",
        help="the receiver's own key; a private one also decrypts the message",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="take keys, path and client id from the settings"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, help="the protocol, if FILE does not say it")
    parser.add_argument("--message", choices=MESSAGES, help="which message of a HAR entry or a capture")
    parser.add_argument("--path", metavar="/…", help="path and query of the request, if FILE lacks them")
    parser.add_argument("--entry", type=int, metavar="N", help="the entry of a HAR file, from 1")
    parser.add_argument(
        "--capture-key", type=Path, metavar="FILE", help="the private key of a capture's recipient"
    )
    parser.add_argument(
        "--share", type=Path, metavar="FILE", help="write what others may see: masked, without a digest"
    )
    parser.add_argument(
        "--share-unmasked", type=Path, metavar="FILE", help="write the same with personal data"
    )
    parser.add_argument("--unmasked", action="store_true", help="show identity values in the text output")
    parser.add_argument("--json", action="store_true", help="write JSON with the exact contents")
    parser.set_defaults(act=_act)


def _act(args: argparse.Namespace) -> int:
    if args.public_key_files is None and args.config is None:
        return fail(
            "name the signer's keys with --public-key-files, or the settings with --config", EX_USAGE
        )
    try:
        exchange, diagnosis = _diagnosed(args)
    except Unusable as error:
        return fail(str(error), EX_CONFIG)
    except SettingsError as error:
        return refuse(error.faults)
    print(as_json(diagnosis) if args.json else as_text(diagnosis, exchange, unmasked=args.unmasked))
    return 0 if diagnosis.verdict is Verdict.VALID else NOT_VALID


def _diagnosed(args: argparse.Namespace) -> tuple[Exchange, Diagnosis]:
    exchange = exchange_in(_content(args.file), args)
    knowledge = knowledge_of(args, exchange)
    diagnosis = diagnosis_of(_with_path(exchange, knowledge), knowledge)
    if diagnosis.verdict is Verdict.VALID and exchange.refused_with in SIGNATURE_CODES:
        code = exchange.refused_with
        diagnosis = replace(diagnosis, fix=f"AlipayHK refused it with {code}, so {HINTS[code]}.")
    for file, unmasked in ((args.share, False), (args.share_unmasked, True)):
        if file is not None:
            write_share(file, diagnosis, exchange, knowledge, unmasked=unmasked)
            print(f"wrote {file}", file=sys.stderr)
    return exchange, diagnosis


def exchange_in(data: bytes, args: argparse.Namespace) -> Exchange:
    """Read the content of FILE, and add what the flags say; raise Unusable."""
    return _completed(_parsed(data, args), args)


def diagnosis_of(exchange: Exchange, knowledge: Knowledge) -> Diagnosis:
    """Diagnose a message."""
    row = _ROWS[exchange.protocol or PROTOCOLS[0]]
    return diagnose(row, row.claim(exchange.as_message(), knowledge.decrypt), knowledge.known)


def _content(name: str) -> bytes:
    try:
        return _read(sys.stdin.buffer) if name == "-" else _read_file(Path(name))
    except OSError as error:
        reason = NOT_REGULAR if error.strerror == NOT_REGULAR else error.strerror
        raise Unusable(f"FILE cannot be read: {reason}.") from None
    except ValueError:
        raise Unusable("FILE cannot be read: no file can have this name.") from None


def _read_file(path: Path) -> bytes:
    with open_regular(path) as file:
        return _read(file)


def _read(file: BinaryIO) -> bytes:
    data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise Unusable("FILE is larger than 64 MiB.")
    return data


def _parsed(data: bytes, args: argparse.Namespace) -> Exchange:
    """Recognise the format by the start of the data, and read it."""
    if is_http(data):
        return exchange_of_http(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("FILE is neither a raw HTTP message nor text in UTF-8.") from None
    if is_curl(text):
        return exchange_of_curl(text)
    if not text.lstrip().startswith("{"):
        raise Unusable("FILE is no exchange as JSON, raw HTTP message, HAR file, curl command or capture.")
    value = json_value(text)
    if is_har(value):
        return exchange_of_har(value, entry=args.entry, message=args.message)
    if is_capture(value):
        return exchange_of_capture(value, args.capture_key, args.message)
    if not isinstance(value, dict):
        raise Unusable("The exchange must be a JSON object.")
    return exchange_of(value)


def _completed(exchange: Exchange, args: argparse.Namespace) -> Exchange:
    """Add what the flags say; raise Unusable if something is missing or contradicts the file."""
    for name in ("protocol", "message", "path"):
        flag, value = getattr(args, name), getattr(exchange, name)
        if flag is not None and value not in (None, flag) and name != "path":
            raise Unusable(f"--{name} contradicts FILE.")
    message = exchange.message or args.message
    if message is None:
        raise Unusable("FILE does not say which message it has: add --message request or response.")
    exchange = replace(exchange, message=message)
    protocol = exchange.protocol or args.protocol or _guessed_protocol(exchange)
    if protocol is None:
        raise Unusable("FILE does not show its protocol: add --protocol header_signed or envelope_signed.")
    path = args.path if args.path is not None else exchange.path
    return replace(exchange, protocol=protocol, path=path)


def _guessed_protocol(exchange: Exchange) -> str | None:
    """Return the protocol that the place of the signature shows; None if there is no signature."""
    if any(name.lower() == "signature" for name, _ in exchange.headers):
        return "header_signed"
    return "envelope_signed" if b'"signature"' in exchange.as_message().raw.body else None


def _with_path(exchange: Exchange, knowledge: Knowledge) -> Exchange:
    if exchange.protocol == "envelope_signed":
        return exchange
    path = exchange.path if exchange.path is not None else knowledge.path
    if path is None:
        raise Unusable("FILE does not say the path of the request: add --path.")
    return replace(exchange, path=path)
