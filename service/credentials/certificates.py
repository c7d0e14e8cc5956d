"""Read the names in a caller's certificate from the certificate itself.

gRPC's auth context does not distinguish the kinds of names, and cuts each name at a NUL:
`loyalty.internal<NUL>.evil.com` becomes `loyalty.internal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509

from .callers import Name

CACHED_MAX: Final = 256
"""Maximum number of parsed certificates in the cache, by their PEM text."""
SHOWN_CHARACTERS_MAX: Final = 512
_COUNTED: Final = ((x509.RFC822Name, "e-mail"), (x509.IPAddress, "IP"))


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The SubjectAltName of one certificate."""

    names: tuple[Name, ...] = ()
    """DNS names and URIs, unchanged and in the order of the certificate."""
    counted: tuple[tuple[str, int], ...] = ()
    """Each other kind and its number of names. Their texts can be personal data, so they are not kept."""

    @property
    def are_clean(self) -> bool:
        """Whether every name is printable ASCII. If one is not, the certificate identifies no caller."""
        return all(name.text.isascii() and name.text.isprintable() for name in self.names)

    def __str__(self) -> str:
        """Format as `DNS:a, URI:b, 1 e-mail name`, with control characters escaped."""
        shown = [f"{kind}:{text.encode('unicode_escape').decode()}" for kind, text in self.names]
        counted = [f"{count} {kind} name{'s' if count > 1 else ''}" for kind, count in self.counted]
        return ", ".join(shown + counted)[:SHOWN_CHARACTERS_MAX]


@lru_cache(CACHED_MAX)
def names_of(pem: bytes) -> CertificateNames:
    """Return the names of a certificate; no names if it has no readable SubjectAltName."""
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        sans = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001  (x509 raises many types, such as TypeError for an empty TLSFeature)
        return CertificateNames()
    names, counts = [], dict[str, int]()
    for san in sans:
        if isinstance(san, (x509.DNSName, x509.UniformResourceIdentifier)) and "@" not in san.value:
            names.append(Name("DNS" if isinstance(san, x509.DNSName) else "URI", san.value))
        else:
            kind = next((kind for of, kind in _COUNTED if isinstance(san, of)), "other")
            counts[kind] = counts.get(kind, 0) + 1
    return CertificateNames(tuple(names), tuple(counts.items()))
