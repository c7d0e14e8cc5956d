"""The names in a caller's certificate, read from the certificate itself.

gRPC's auth context is not enough: it cuts each name at a NUL: `loyalty.internal<NUL>.evil.com` reads
as `loyalty.internal`. Nor does it say which kind of name each of them is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509

from .callers import Name

CACHED_MAX: Final = 256
"""How many certificates are kept parsed, by their PEM text."""
SHOWN_CHARACTERS_MAX: Final = 512
_COUNTED: Final = ((x509.RFC822Name, "e-mail"), (x509.IPAddress, "IP"))


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The SubjectAltName of one certificate."""

    names: tuple[Name, ...] = ()
    """DNS names and URIs as they are in the certificate, in its order."""
    counted: tuple[tuple[str, int], ...] = ()
    """How many names of each other kind there are. Their texts may be personal data."""

    @property
    def are_clean(self) -> bool:
        """Whether every name is printable ASCII; with a NUL or a control character in one, none counts."""
        return all(name.text.isascii() and name.text.isprintable() for name in self.names)

    def __str__(self) -> str:
        """Write `DNS:a, URI:b, 1 e-mail name`, with control characters escaped."""
        shown = [f"{kind}:{text.encode('unicode_escape').decode()}" for kind, text in self.names]
        counted = [f"{count} {kind} name{'s' if count > 1 else ''}" for kind, count in self.counted]
        return ", ".join(shown + counted)[:SHOWN_CHARACTERS_MAX]


@lru_cache(CACHED_MAX)
def names_of(pem: bytes) -> CertificateNames:
    """Return the names of a certificate; none where it has no SubjectAltName that can be read."""
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        sans = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001  (x509 raises many kinds, TypeError for an empty TLSFeature among them)
        return CertificateNames()
    names, counts = [], dict[str, int]()
    for san in sans:
        if isinstance(san, (x509.DNSName, x509.UniformResourceIdentifier)) and "@" not in san.value:
            names.append(Name("DNS" if isinstance(san, x509.DNSName) else "URI", san.value))
        else:
            kind = next((kind for of, kind in _COUNTED if isinstance(san, of)), "other")
            counts[kind] = counts.get(kind, 0) + 1
    return CertificateNames(tuple(names), tuple(counts.items()))
