"""The HTML report: its content, and its appearance in a real browser, in light and in dark."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alipayhk_linkage.load.html_report import html_report
from tests.load.browser import Picture, look
from tests.load.runs import load


@pytest.fixture(scope="module")
def html(mixed: tuple[Any, str]) -> str:
    return mixed[1]


def test_real_gateways_do_as_they_say(mixed: tuple[Any, str]) -> None:
    ran, _ = mixed
    assert ran.status == 0, ran.out
    assert re.search(r"passed  --verify: \d{3} request ids, all outcomes confirmed", ran.out)
    asked = {end["asked"] for end in ran.report["outcomes"]}
    assert asked == {"plain", "duplicate", "out of order", "cancelled", "short deadline", "fault"}
    ended = {(end["rpc"], end["asked"], end["reason"], end["outcome"]) for end in ran.report["outcomes"]}
    assert ("SyncLinkage", "out of order", "STALE_BIZ_TIME", "not_sent") in ended
    assert ("SyncLinkage", "fault", "WALLET_REJECTED", "rejected") in ended
    # A gateway on a busy machine may refuse calls as too many; nothing else is an error here.
    errors = [end for end in ran.report["outcomes"] if end["group"] == "error"]
    overloaded = sum(end["count"] for end in errors if end["reason"] == "OVERLOADED")
    assert ran.report["error"]["count"] == overloaded, ran.out
    assert ran.report["verification"]["sends"]["BindAccount"].keys() <= {"0", "1"}


class Outline(HTMLParser):
    """The elements of a page with their attributes. Checks that each element is closed."""

    VOID = frozenset({"meta", "link", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(html: str) -> Outline:
    found = Outline()
    found.feed(html)
    assert found.open == []
    return found


def test_the_page_has_no_scripts_and_no_external_links(html: str) -> None:
    found = outline(html).found
    assert {tag for tag, _ in found} & {"script", "iframe", "img", "object", "embed"} == set()
    links = [
        value for _, attributes in found for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert links == ["data:,"]
    assert "url(" not in html
    assert "@import" not in html


def test_plots_are_accessible_to_screen_readers(html: str) -> None:
    found = outline(html).found
    drawn = [attributes for tag, attributes in found if tag == "svg" and attributes.get("role") == "img"]
    assert len(drawn) == 4
    ids = {attributes["id"] for _, attributes in found if "id" in attributes}
    assert all(set((attributes["aria-labelledby"] or "").split()) <= ids for attributes in drawn)
    assert Counter(tag for tag, _ in found)["title"] == 1 + 4
    assert Counter(tag for tag, _ in found)["desc"] == 4
    assert ("html", {"lang": "en"}) in found


def test_the_report_contains_no_file_names_and_no_keys(html: str, mixed: tuple[Any, str]) -> None:
    for text in (html, json.dumps(mixed[0].report)):
        assert not re.search(r"/tmp/|/home/|\.pem|\.json|BEGIN", text)


def test_text_is_escaped_in_html(mixed: tuple[Any, str]) -> None:
    report = json.loads(json.dumps(mixed[0].report))
    nasty = '<script>alert(1)</script>&"'
    report["settings"]["target"] = report["run"]["id"] = report["outcomes"][0]["reason"] = nasty
    report["verdict"]["sentences"].append(nasty)
    written = html_report(report)
    assert "<script" not in written
    assert outline(written).found


def luminance(colour: tuple[int, ...]) -> float:
    parts = [part / 255 for part in colour[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_for_text(html: str, scheme: str) -> None:
    sets = re.findall(r":root\{(.*?)\}", html, re.DOTALL)
    colours = dict(re.findall(r"--(\w+):(#\w+)", sets[scheme == "dark"]))
    assert len(colours) == 10

    def of(name: str) -> float:
        digits = colours[name][1:]
        digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
        return luminance(tuple(bytes.fromhex(digits)))

    for ground in ("ground", "card"):
        for ink in ("ink", "quiet", "first", "second", "third", "bad", "good"):
            light, dark = sorted((of(ground), of(ink)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


@pytest.mark.browser
def test_the_page_renders_in_light_and_in_dark(html: str, tmp_path: Path) -> None:
    (written := tmp_path / "report.html").write_text(html, "utf-8")
    light, dark = (look(written, scheme=scheme) for scheme in ("light", "dark"))
    for seen in (light, dark):
        assert seen.console == []
    assert luminance(light.picture.at(5, 5)) > 0.85
    assert luminance(dark.picture.at(5, 5)) < 0.05
    for seen in (light, dark):
        plots_are_not_blank(seen.picture)


def plots_are_not_blank(picture: Picture) -> None:
    """Check that both columns of plots contain lines in the first colour, with more blue than red."""
    for columns in (range(40, 520), range(580, 1060)):
        blue = sum(
            b > r + 60 and b > 120
            for x in columns
            for y in range(260, 1000, 2)
            for r, g, b in [picture.at(x, y)]
        )
        assert blue > 150


@pytest.mark.browser
def test_the_page_fits_a_narrow_screen(html: str, tmp_path: Path) -> None:
    """At 400 px only tables scroll sideways, inside their frames. The right margin stays empty."""
    (written := tmp_path / "report.html").write_text(html, "utf-8")
    picture = look(written, scheme="light", size=(400, 2400)).picture
    assert {picture.at(x, y) for x in range(390, 400) for y in range(0, 2400, 10)} == {picture.at(395, 2)}


def test_a_run_without_a_success_has_an_html_report(tmp_path: Path, refusing: str) -> None:
    file = tmp_path / "report.html"
    ran = load(
        tmp_path, refusing, "--rate", "20", "--duration", "1s", "--warm-up", "0s", "--html", str(file)
    )
    assert ran.status == 0, ran.out
    written = file.read_text("utf-8")
    assert "no call succeeded" in written
    assert "100.00%" in written
    assert outline(written).found
