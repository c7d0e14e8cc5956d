"""The plot of `docs/performance.md`: the gateways side by side, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

NAMES_PX: Final = 330
BARS_PX: Final = 330
ROW_PX: Final = 24
TOP_PX: Final = 30
OURS: Final = "#1c5fc4"
OTHERS: Final = "#8b96a3"

STYLE: Final = 'font-family="system-ui, sans-serif" font-size="13" fill="#1a1f25"'
GROUND: Final = '<rect width="100%" height="100%" fill="#fff"/>'

Row = tuple[str, float, bool]
"""A name, its figure, and whether it is ours."""


def plot(charts: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return an SVG of bar charts, one below the other; each has a title and rows."""
    parts, top = list[str](), 0
    for title, rows in charts:
        parts.append(f'<text x="0" y="{top + 20}" font-weight="600">{escape(title)}</text>')
        most = max((figure for _, figure, _ in rows), default=1.0)
        for number, (name, figure, is_ours) in enumerate(rows):
            y = top + TOP_PX + number * ROW_PX
            width = BARS_PX * figure / most
            colour = OURS if is_ours else OTHERS
            parts += (
                f'<text x="{NAMES_PX - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{NAMES_PX}" y="{y + 2}" width="{width:.1f}" height="18" fill="{colour}"/>',
                f'<text x="{NAMES_PX + width + 6:.1f}" y="{y + 15}">{figure:.2f}</text>',
            )
        top += TOP_PX + ROW_PX * len(rows) + 14
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{NAMES_PX + BARS_PX + 60}" height="{top}" {STYLE}>'
    )
    return "\n".join((head, GROUND, *parts, "</svg>\n"))
