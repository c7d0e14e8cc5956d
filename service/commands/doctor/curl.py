"""Read a curl command, as browsers and API tools copy it."""

from __future__ import annotations

import argparse
import re
from typing import Final, NoReturn

from .exchange import Exchange, Unusable, bytes_of
from .http_text import path_of, with_host

_WORD: Final = re.compile(
    r"""(?P<space>(?:[ \t\r\n]|\\\r?\n)+)|\$'(?P<ansi>(?:[^'\\]|\\.)*)'|'(?P<single>[^']*)'"""
    r"""|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<plain>[^ \t\r\n'"\\$]+|\$)""",
    re.DOTALL,
)
_ANSI: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{1,4})|x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_ANSI_NAMES: Final = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_WITH_VALUE: Final = (
    *("-o", "-u", "-A", "-e", "-b", "-c", "-m", "-w", "-x", "-E", "--output", "--user", "--user-agent"),
    *("--referer", "--cookie", "--max-time", "--connect-timeout", "--write-out", "--proxy", "--cacert"),
    *("--cert", "--key", "--resolve", "--connect-to", "--retry", "--http-version", "--cookie-jar"),
)
_DATA: Final = ("-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--json")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # noqa: ARG002  (argparse's interface)
        raise Unusable("The curl command has an option without its value.") from None


def is_curl(text: str) -> bool:
    """Return whether a text is a curl command."""
    return re.match(r"\s*(?:\$ )?curl(?:\.exe)?\s", text) is not None


def exchange_of_curl(text: str) -> Exchange:
    """Read a command; raise Unusable."""
    if '^"' in text:
        raise Unusable("The curl command is quoted for Windows: copy it as cURL (bash).")
    parser = _Parser(add_help=False, allow_abbrev=False)
    for names in (("-X", "--request"), ("--url",), ("--data-urlencode",), ("-F", "--form")):
        parser.add_argument(*names, dest=names[-1].strip("-"))
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument(*_DATA, dest="data", action="append")
    for name in _WITH_VALUE:
        parser.add_argument(name, dest="ignored")
    parser.add_argument("urls", nargs="*")
    options, _ = parser.parse_known_intermixed_args(words_of(text)[1:])
    urls = ([options.url] if options.url else []) + [
        url for url in options.urls if re.match(r"https?://|/", url)
    ]
    if len(urls) != 1:
        raise Unusable("The curl command must have exactly one URL.")
    if options.data is None or getattr(options, "data-urlencode", None) or options.form:
        raise Unusable(
            "The curl command must have its body in --data, --data-raw, --data-binary or --json."
        )
    if any(part.startswith("@") for part in options.data):
        raise Unusable("The body of the curl command is in a file: write it into the command.")
    return Exchange(
        message="request",
        path=path_of(urls[0]),
        headers=with_host(tuple(map(_header, options.header)), urls[0]),
        body=bytes_of("&".join(options.data), "data"),
    )


def words_of(text: str) -> list[str]:
    """Split a command as bash does, without variables; raise Unusable."""
    words, word, at = list[str](), None, 0
    text = text.strip().removeprefix("$ ")
    while at < len(text):
        if (found := _WORD.match(text, at)) is None:
            raise Unusable("The curl command has a quote without its end.")
        at = found.end()
        if found["space"] is not None:
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + _unquoted(found)
    return words + ([] if word is None else [word])


def _unquoted(found: re.Match[str]) -> str:
    if found["ansi"] is not None:
        return _ANSI.sub(_ansi, found["ansi"]).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if found["double"] is not None:
        return re.sub(r'\\(?:([$`"\\])|\r?\n)', lambda escape: escape[1] or "", found["double"])
    return next(text for text in found.groupdict().values() if text is not None)


def _ansi(escape: re.Match[str]) -> str:
    code, byte, octal, name = escape.groups()
    if name is not None:
        return _ANSI_NAMES.get(name, name)
    return chr(int(code or byte, 16) if code or byte else int(octal, 8))


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()
