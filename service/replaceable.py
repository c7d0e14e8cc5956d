"""The parts of a gateway that a reload replaces."""

from __future__ import annotations

from .config.settings import Settings
from .credentials.in_use import InUse
from .outcomes.result_codes import ResultCodes
from .server.tls import certificate_of
from .upstream import endpoints_of


class Replaceable:
    """What is in use of the settings that can change without a restart."""

    def __init__(self, settings: Settings) -> None:
        self.endpoints = InUse(endpoints_of(settings))
        """The endpoint of each API of AlipayHK, with the keys of both sides."""
        self.certificate = InUse(certificate_of(settings))
        self.callers = InUse(settings.callers_file)
        self.codes = InUse(settings.result_codes_file or ResultCodes())

    def replace(self, settings: Settings) -> None:
        """Use the keys, the certificate, the callers and the result codes of other settings from now on."""
        self.endpoints.current = endpoints_of(settings)
        self.certificate.current = certificate_of(settings)
        self.callers.current = settings.callers_file
        self.codes.current = settings.result_codes_file or ResultCodes()
