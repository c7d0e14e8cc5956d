"""The causes that a diagnosis can name, each with what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """Why a signature does not verify. The values are part of the output of `doctor message`."""

    WRONG_KEY = "wrong_key"
    OWN_KEY = "own_key"
    OTHER_KEY_VERSION = "other_key_version"
    TRAILING_NEWLINE = "trailing_newline"
    LINE_ENDINGS = "line_endings"
    JSON_WHITESPACE = "json_whitespace"
    JSON_KEY_ORDER = "json_key_order"
    JSON_ESCAPES = "json_escapes"
    SIGNED_BEFORE_ENCRYPTION = "signed_before_encryption"
    PATH = "path"
    TIME = "time"
    CLIENT_ID = "client_id"
    SIGNATURE_ENCODING = "signature_encoding"
    SHA1 = "sha1"
    MD5 = "md5"
    PSS = "pss"
    DOUBLE_HASH = "double_hash"
    CHARSET = "charset"
    BOM = "bom"
    ENVELOPE_PART = "envelope_part"
    COMPRESSED = "compressed"
    TRUNCATED = "truncated"


FIXES: Final[dict[Cause, str]] = {
    Cause.WRONG_KEY: "Compare the key's fingerprint (`keys inspect`) with the signer; if it is the same,"
    " compare the signature with the one that was sent.",
    Cause.OWN_KEY: "Replace our own public key by the public key that the signer hands out.",
    Cause.OTHER_KEY_VERSION: "Name the version of the signing key in keyVersion.",
    Cause.TRAILING_NEWLINE: "Sign the body exactly as it is sent, with the same end.",
    Cause.LINE_ENDINGS: "Write one LF after the path, and let nothing convert the line breaks of the body.",
    Cause.JSON_WHITESPACE: "Write the JSON once, and sign and send these same bytes.",
    Cause.JSON_KEY_ORDER: "Write the JSON once, in one order, and sign and send these same bytes.",
    Cause.JSON_ESCAPES: "Write the JSON once, with the same escapes, and sign and send these same bytes.",
    Cause.SIGNED_BEFORE_ENCRYPTION: "Encrypt the body first, and then sign the encrypted text.",
    Cause.PATH: "Sign path and query exactly as the request line has them, and let no proxy rewrite them.",
    Cause.TIME: "Take the time once, and use the same text in the signed content and in the message.",
    Cause.CLIENT_ID: "Use the same client id in the signed content and in the message.",
    Cause.SIGNATURE_ENCODING: "Write the signature as standard base64 on one line, percent-encoded once.",
    Cause.SHA1: "Sign with SHA256withRSA, not SHA1withRSA.",
    Cause.MD5: "Sign with SHA256withRSA, not MD5withRSA.",
    Cause.PSS: "Sign with the padding PKCS#1 v1.5 (SHA256withRSA), not PSS.",
    Cause.DOUBLE_HASH: "Give the content itself to the signing function: it makes the hash.",
    Cause.CHARSET: "Encode the content as UTF-8, for signing and for sending.",
    Cause.BOM: "Write the JSON without a byte order mark, for signing and for sending.",
    Cause.ENVELOPE_PART: "Sign the whole content to sign, and nothing around it.",
    Cause.COMPRESSED: "Sign the body as the receiver verifies it, or send it without compression.",
    Cause.TRUNCATED: "Find out what cut the message: a proxy, a limit, or the tool that recorded it.",
}
"""One sentence for each cause, for the side that makes the mistake."""
