"""Open a page in headless Chromium, and take a screenshot."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.peers.processes import WAIT_MAX_S

WINDOW: Final = (1100, 2400)
QUIET: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--enable-logging=stderr"),
)
SCHEMES: Final = {"dark": "0", "light": "1"}
"""Blink's numbers for prefers-color-scheme."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The pixels of a PNG with 8 bits per channel, the format that Chromium writes."""

    width: int
    height: int
    channels: int
    rows: list[bytes]

    def at(self, x: int, y: int) -> tuple[int, int, int]:
        red, green, blue = self.rows[y][x * self.channels : x * self.channels + 3]
        return red, green, blue


@dataclass(frozen=True, slots=True)
class Seen:
    """The screenshot, and the messages on the browser's console."""

    picture: Picture
    console: list[str]


def chromium() -> str:
    """Return the path of Chromium. .ci/run installs it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("chromium is not installed: apt-get install --no-install-recommends chromium")
    return found


def look(page: Path, *, scheme: str, size: tuple[int, int] = WINDOW, keep: Path | None = None) -> Seen:
    """Open a page and take a screenshot. With `keep`, store it at that path."""
    with tempfile.TemporaryDirectory() as profile:
        picture = keep or Path(profile) / "picture.png"
        done = subprocess.run(
            (
                *(chromium(), *QUIET, f"--user-data-dir={profile}/profile", f"--screenshot={picture}"),
                *(
                    f"--window-size={size[0]},{size[1]}",
                    f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
                ),
                page.as_uri(),
            ),
            capture_output=True,
            check=True,
            timeout=WAIT_MAX_S,
        )
        console = re.findall(r"CONSOLE.*", done.stderr.decode(errors="replace"))
        return Seen(read_png(picture.read_bytes()), console)


def read_png(data: bytes) -> Picture:
    """Decode a PNG: https://www.w3.org/TR/png-3/."""
    chunks, at = b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        elif kind == b"IDAT":
            chunks += body
        at += 12 + length
    channels = {2: 3, 6: 4}[colour]
    assert depth == 8
    raw, rows, stride = zlib.decompress(chunks), [], width * channels
    above = bytes(stride)
    for row in range(height):
        start = row * (stride + 1)
        above = unfiltered(raw[start], raw[start + 1 : start + 1 + stride], above, channels)
        rows.append(above)
    return Picture(width, height, channels, rows)


def unfiltered(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    """Undo the filter of a row: https://www.w3.org/TR/png-3/#9Filters."""
    if kind == 0:
        return line
    if kind == 2:
        return bytes((value + up) & 255 for value, up in zip(line, above, strict=True))
    row = bytearray(len(line))
    for at, value in enumerate(line):
        left = row[at - channels] if at >= channels else 0
        corner = above[at - channels] if at >= channels else 0
        up = above[at]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            to = left + up - corner
            guess = min((abs(to - left), 0, left), (abs(to - up), 1, up), (abs(to - corner), 2, corner))[2]
        row[at] = (value + guess) & 255
    return bytes(row)
