"""The mistakes that signers make, at least two for each cause, as changes of a correct `Signing`.

Where a tool or another language makes the mistake, it is made as that tool makes it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from clients.alipayhk.diagnosis.causes import Cause
from tests.alipayhk.diagnosis.signers import (
    CLIENT_ID,
    KINDS,
    PATH,
    TIME,
    Change,
    Signing,
    digest_signed,
    rewritten,
    url_base64,
)

HEADER: Final = tuple(kind for kind in KINDS if kind[0] == "header_signed")
ENVELOPE: Final = tuple(kind for kind in KINDS if kind[0] == "envelope_signed")
REQUESTS: Final = tuple(kind for kind in KINDS if kind[1] == "request")


@dataclass(frozen=True)
class Mistake:
    """One mistake."""

    name: str
    cause: Cause
    change: Callable[[Signing], Signing]
    kinds: tuple[tuple[str, str], ...] = KINDS


def _with(**changes: Any) -> Callable[[Signing], Signing]:
    return lambda signing: replace(signing, **changes)


def _then(name: str, change: Change) -> Callable[[Signing], Signing]:
    """Return a change of one step that follows what the step does already."""

    def changed(signing: Signing) -> Signing:
        before = getattr(signing, name)
        changes: dict[str, Any] = {name: lambda data: change(before(data))}
        return replace(signing, **changes)

    return changed


def _signs_body(change: Change) -> Callable[[Signing], Signing]:
    return _then("signed_body", change)


def _signs(change: Change) -> Callable[[Signing], Signing]:
    return _then("content", change)


def _sends(change: Change) -> Callable[[Signing], Signing]:
    return _then("sent", change)


def _member(name: str, old: str, new: str) -> Callable[[Signing], Signing]:
    """Return a change of a part of the frame, or of the member of an envelope with the same value."""

    def changed(signing: Signing) -> Signing:
        if signing.protocol == "header_signed":
            changes: dict[str, Any] = {name: new}
            return replace(signing, **changes)
        return _signs_body(lambda data: data.replace(f'"{old}"'.encode(), f'"{new}"'.encode(), 1))(signing)

    return changed


def _sorted_members(data: bytes) -> bytes:
    return rewritten(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _compact(data: bytes, **arguments: Any) -> bytes:
    return rewritten(data, **{"ensure_ascii": False, "separators": (",", ":"), **arguments})


def _php(data: bytes) -> bytes:
    """Write JSON as PHP's json_encode does: https://www.php.net/manual/en/function.json-encode.php"""
    return _compact(data, ensure_ascii=True).replace(b"/", rb"\/")


def _go_html(data: bytes) -> bytes:
    return data.replace(b"<", rb"\u003c").replace(b"&", rb"\u0026")


def _hash_map(data: bytes) -> bytes:
    """Write JSON as fastjson writes a HashMap: by the hashes that java.lang.String documents."""

    def place(name: str) -> int:
        code = 0
        for character in name:
            code = (code * 31 + ord(character)) % 2**32
        return (code ^ code >> 16) % 16

    def node(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: node(value[name]) for name in sorted(value, key=place)}
        return [node(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(node(json.loads(data)), ensure_ascii=False, separators=(",", ":"))
    return text.replace("2.5,", "2.50,").encode()


def _rotated(data: bytes) -> bytes:
    """Move the first member of the outer object, or of its first object, to the end."""
    text = data.decode()
    members = json.loads(text)
    inner = next((value for value in members.values() if isinstance(value, dict)), members)
    name = next(iter(inner))
    inner[name] = inner.pop(name)
    written = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    return written.replace("2.5,", "2.50,").encode()


def _indented(line_break: bytes) -> Change:
    return lambda data: (
        json.dumps(json.loads(data), indent=2, ensure_ascii=False)
        .replace("2.5,", "2.50,")
        .encode()
        .replace(b"\n", line_break)
    )


def _spaced(data: bytes) -> bytes:
    return re.sub(rb'("(?:[^"\\]|\\.)*")|([,:])', lambda found: found[1] or found[2] + b" ", data)


def _hex_of(name: str) -> Change:
    return lambda data: hashlib.new(name, data).hexdigest().encode()


def _part(name: str) -> Change:
    return lambda data: _compact(json.dumps(json.loads(data)[name]).encode())


def _text(change: Callable[[str], str]) -> Callable[[Signing], Signing]:
    return _with(text=lambda signature: change(url_base64(signature)))


def _plain(change: Callable[[str], str]) -> Callable[[Signing], Signing]:
    return _with(text=lambda signature: change(base64.b64encode(signature).decode()))


def _lines(text: str) -> str:
    return r"\n".join(text[at : at + 64] for at in range(0, len(text), 64))


def _joined(form: bytes) -> Callable[[Signing], Signing]:
    """Return a change of the text before the body: %p is the path, %c the client id, %t the time."""

    def join(path: str, client_id: str, time: str, body: bytes) -> bytes:
        texts = {b"%p": path, b"%c": client_id, b"%t": time}
        return re.sub(rb"%[pct]", lambda found: texts[found[0]].encode(), form) + body

    return _with(join=join)


PSS: Final = ("-sha256", "-sigopt", "rsa_padding_mode:pss")

MISTAKES: Final = (
    Mistake("LF after the content, as echo adds it", Cause.TRAILING_NEWLINE, _signs(lambda c: c + b"\n")),
    Mistake("CR LF after the content", Cause.TRAILING_NEWLINE, _signs(lambda c: c + b"\r\n")),
    Mistake("LF sent and not signed", Cause.TRAILING_NEWLINE, _sends(lambda b: b + b"\n"), HEADER),
    Mistake("CR LF after the path", Cause.LINE_ENDINGS, _joined(b"POST %p\r\n%c.%t."), HEADER),
    Mistake("backslash and n after the path", Cause.LINE_ENDINGS, _joined(rb"POST %p\n%c.%t."), HEADER),
    Mistake(
        "CR LF in the body sent",
        Cause.LINE_ENDINGS,
        lambda s: replace(s, body=_indented(b"\n")(s.body), sent=lambda b: b.replace(b"\n", b"\r\n")),
    ),
    Mistake("spaces signed", Cause.JSON_WHITESPACE, _signs_body(_spaced)),
    Mistake("indented JSON signed", Cause.JSON_WHITESPACE, _signs_body(_indented(b"\n"))),
    Mistake("spaces sent", Cause.JSON_WHITESPACE, _sends(_spaced)),
    Mistake(
        "sorted members signed",
        Cause.JSON_KEY_ORDER,
        _signs_body(_sorted_as_sent := lambda b: _sorted_members(b).replace(b"2.5,", b"2.50,")),
    ),
    Mistake(
        "members of a HashMap signed",
        Cause.JSON_KEY_ORDER,
        _signs_body(_hash_map),
        (*REQUESTS, *ENVELOPE[1:]),
    ),
    Mistake("sorted members sent", Cause.JSON_KEY_ORDER, _sends(_sorted_as_sent), REQUESTS),
    Mistake("members of one object in another order", Cause.JSON_KEY_ORDER, _signs_body(_rotated)),
    Mistake(
        "PHP's JSON signed", Cause.JSON_ESCAPES, _signs_body(lambda b: _php(b).replace(b"2.5,", b"2.50,"))
    ),
    Mistake("escaped slashes sent", Cause.JSON_ESCAPES, _sends(lambda b: b.replace(b"/", rb"\/"))),
    Mistake(
        "ASCII sent", Cause.JSON_ESCAPES, _sends(lambda b: b.decode().encode("ascii", "backslashreplace"))
    ),
    Mistake("path without query", Cause.PATH, _with(path=PATH.partition("?")[0]), HEADER),
    Mistake("path with slash", Cause.PATH, _with(path=PATH.replace("?", "/?")), HEADER),
    Mistake("path with host", Cause.PATH, _with(path=f"https://open.alipay.hk{PATH}"), HEADER),
    Mistake("path without prefix", Cause.PATH, _with(path=PATH.removeprefix("/api/open")), HEADER),
    Mistake("time a second later", Cause.TIME, _member("time", TIME, TIME.replace(":05+", ":06+"))),
    Mistake("time in UTC", Cause.TIME, _member("time", TIME, "2026-03-01T04:00:05Z")),
    Mistake(
        "client id of another product", Cause.CLIENT_ID, _member("client_id", CLIENT_ID, "OTHER-PRODUCT")
    ),
    Mistake("client id in lower case", Cause.CLIENT_ID, _member("client_id", CLIENT_ID, CLIENT_ID.lower())),
    Mistake("escaped twice", Cause.SIGNATURE_ENCODING, _text(lambda text: quote(text, safe=""))),
    Mistake("plus as space", Cause.SIGNATURE_ENCODING, _plain(lambda text: text.replace("+", " "))),
    Mistake(
        "base64url", Cause.SIGNATURE_ENCODING, _with(text=lambda s: base64.urlsafe_b64encode(s).decode())
    ),
    Mistake(
        "line breaks, as openssl base64 writes them",
        Cause.SIGNATURE_ENCODING,
        _plain(_lines),
        (("envelope_signed", "request"),),
    ),
    Mistake(
        "line breaks, escaped",
        Cause.SIGNATURE_ENCODING,
        _plain(lambda t: quote(_lines(t).replace(r"\n", "\n"), safe="")),
        (("header_signed", "request"),),
    ),
    Mistake("SHA1withRSA", Cause.SHA1, _with(sign=digest_signed("-sha1"))),
    Mistake("MD5withRSA", Cause.MD5, _with(sign=digest_signed("-md5"))),
    Mistake("PSS", Cause.PSS, _with(sign=digest_signed(*PSS, "-sigopt", "rsa_pss_saltlen:digest"))),
    Mistake(
        "PSS with the longest salt",
        Cause.PSS,
        _with(sign=digest_signed(*PSS, "-sigopt", "rsa_pss_saltlen:max")),
    ),
    Mistake(
        "PSS without a salt, with the mask of SHA-1",
        Cause.PSS,
        _with(sign=digest_signed(*PSS, "-sigopt", "rsa_pss_saltlen:0", "-sigopt", "rsa_mgf1_md:sha1")),
    ),
    Mistake("hash signed", Cause.DOUBLE_HASH, _signs(lambda c: hashlib.sha256(c).digest())),
    Mistake("hash in hex signed", Cause.DOUBLE_HASH, _signs(_hex_of("sha256"))),
    Mistake("GBK signed", Cause.CHARSET, _signs_body(lambda b: b.decode().encode("gbk"))),
    Mistake(
        "question marks signed", Cause.CHARSET, _signs_body(lambda b: b.decode().encode("ascii", "replace"))
    ),
    Mistake("UTF-8 read as ISO-8859-1", Cause.CHARSET, _signs_body(lambda b: b.decode("latin-1").encode())),
    Mistake("byte order mark signed", Cause.BOM, _signs_body(lambda b: b"\xef\xbb\xbf" + b)),
    Mistake("byte order mark before the content", Cause.BOM, _signs(lambda c: b"\xef\xbb\xbf" + c)),
    Mistake("byte order mark sent", Cause.BOM, _sends(lambda b: b"\xef\xbb\xbf" + b), HEADER),
    Mistake("body alone", Cause.ENVELOPE_PART, _joined(b""), HEADER),
    Mistake("first line missing", Cause.ENVELOPE_PART, _joined(b"%c.%t."), HEADER),
    Mistake(
        "outer object",
        Cause.ENVELOPE_PART,
        lambda s: _signs(lambda c: b'{"%s":%s}' % (s.kind.encode(), c))(s),
        ENVELOPE,
    ),
    Mistake("body without head", Cause.ENVELOPE_PART, _signs(_part("body")), ENVELOPE),
    Mistake("head without body", Cause.ENVELOPE_PART, _signs(_part("head")), ENVELOPE),
    Mistake("compressed after signing", Cause.COMPRESSED, _sends(gzip.compress), HEADER),
    Mistake("deflated after signing", Cause.COMPRESSED, _sends(zlib.compress), HEADER),
    Mistake(
        "byte order mark before the envelope",
        Cause.BOM,
        _with(whole=lambda b: b"\xef\xbb\xbf" + b),
        (("envelope_signed", "request"),),
    ),
    Mistake("envelope compressed", Cause.COMPRESSED, _with(whole=gzip.compress), ENVELOPE),
    Mistake(
        "compressed before signing",
        Cause.COMPRESSED,
        _signs_body(lambda b: gzip.compress(b, mtime=0)),
        HEADER,
    ),
)
