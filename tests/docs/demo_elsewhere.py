"""`alipayhk-gateway demo` on other ports: `python -m tests.docs.demo_elsewhere 50051=20001 ...`."""

from __future__ import annotations

import sys
from dataclasses import replace

from service.commands.cli import main
from service.commands.demo import demo
from service.commands.demo.calls import EXAMPLES


def run(ports: dict[str, str]) -> int:
    """Run the demo where each of its ports is replaced."""

    def moved(address: str) -> str:
        host, _, port = address.partition(":")
        return f"{host}:{ports[port]}"

    for name in ("PLAIN", "ENCRYPTED", "PLAIN_ADMIN", "ENCRYPTED_ADMIN", "SANDBOX"):
        setattr(demo, name, moved(getattr(demo, name)))
    examples = tuple(replace(example, address=moved(example.address)) for example in EXAMPLES)
    setattr(demo, "EXAMPLES", examples)  # noqa: B010  (which is constant to all others)
    return main(["demo"])


if __name__ == "__main__":
    sys.exit(run(dict(word.split("=") for word in sys.argv[1:])))
