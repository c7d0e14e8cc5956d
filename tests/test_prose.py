"""The language of this repository is plain, as CONTRIBUTING.md asks: few sentences match the lexicon below.

The lexicon lists constructions that make a sentence hard to read for someone new to the project. It finds
only these, so it is a lower bound. When a test here fails, rewrite the sentences that it prints by meaning:
another spelling of the same construction reads no better.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.test_house import ROOT, files, name

MARKED_SHARE_MAX: Final = 0.04
WORDS_MIN: Final = 3
"""Shorter texts are labels, not sentences."""

LEXICON: Final = {
    "told, tells; say: reported, returned, logged": (
        r"\b(is|are|was|were|be|been) told\b|\btold of\b|\bthat tells\b|\btells?\.$|^Tell\b"
        r"|\btells? (?:of|what|how|why|it|so|when|apart)\b"
    ),
    "came of; say: outcome": r"\b(what|how) (?:\w+ )?came of\b|\bcame of\b|\bwhat came\b|\bcame to\b",
    "stands; say: is, contains": r"\bstands?\b|\bstood\b",
    "mend; say: fix, repair": r"\bmend(?:s|ed|ing)?\b",
    "of which, by whom; say it in a sentence": r"\b(?:of|by|for|in|under|with) (?:which|whom|whose)\b",
    "whoever, nobody; say: the caller, no client": (
        r"\b(?:Whoever|whoever|Who|Whose|whose time|those who|one who|whom)\b"
        r"|\b(?:nobody|somebody|Nobody|everybody|Somebody)\b"
    ),
    "is none; say: there is no": r"\b(?:is|are|be) none\b|\bwhere there is none\b|\bof none\b",
    "begin, end; say: start, stop, result": (
        r"\bbeg(?:in|ins|an|un|inning)\b|\bits end\b|\bendings?\b|\bin mid-\w+"
    ),
    "come about, go on, hold to; say: happen, continue, follow": (
        r"\bcome(?:s)? about\b|\bgone round\b|\bgo(?:es)? on\b|\bbears?\b|\bheld to\b|\bholds? to\b"
        r"|\bat hand\b"
    ),
    "beside; say: with, in addition to": r"\bbeside\b",
    "by itself, meanwhile; say: alone, while": (
        r"\bnevertheless\b|\ball the same\b|\bmeanwhile\b|\bby itself\b|\bof itself\b"
    ),
    "news, in force, at once; say: request, effective, immediately": (
        r"\bnews\b|\bstrangers?\b|\bwords of (?:its|their) own\b|\bin force\b|\bput it to\b|\bpeople's\b"
        r"|\bat once\b"
    ),
    "under way; say: in progress, in flight": r"\bunder way\b",
    "a byte left; say: the first byte was sent": (
        r"\bbytes? (?:of it |of the \w+ |may have |has |had |have )*(?:left|leave|leaves)\b"
        r"|\bmay have left\b|\bnothing (?:of that |more )?left\b|\bnever left\b"
    ),
    "inverted opening; say: subject, verb, object": (
        r"^(?:What|Where|Of|By what|From|So|With|Without|Not|But|That|Who|Whose)\b[^.?]{10,}$"
        r"|^(?:What|Where|Of)\b"
    ),
}
"""Each construction with what to say instead, and the pattern that finds it in one sentence."""

AREAS: Final = (
    *(f"code: {kind}" for kind in ("comments", "docstrings", "error texts", "help texts", "log events")),
    *("docs: ADR", "docs: README", "docs: other", "protos"),
    *("tests: comments", "tests: docstrings", "tests: names"),
)
FOLDERS: Final = ("service", "clients/alipayhk", "sandbox", "clients/linkage/alipayhk_linkage", "tests")
LOG_METHODS: Final = {"debug", "info", "warning", "error", "critical"}
ERROR_FUNCTIONS: Final = {"Violation", "_fail", "_setting", "Counter", "Gauge", "Histogram"}
"""Functions with arguments that callers or operators read."""
VERB: Final = re.compile(r"\b(?:is|are|was|were|has|have|had|cannot|could)\b")
RELATIVE: Final = re.compile(r"^(?:what|who|whom|whoever|whose|where|how|nobody|somebody|everybody)\b")


class Sentence(NamedTuple):
    """One sentence, and where it is."""

    area: str
    text: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"

    @property
    def marks(self) -> list[str]:
        """The entries of the lexicon that match."""
        return [mark for mark, pattern in LEXICON.items() if re.search(pattern, self.text, re.MULTILINE)]


def sentences(area: str, text: str, place: str) -> Iterator[Sentence]:
    text = re.sub(r"\s+", " ", text.strip())
    for part in re.split(r"(?<=[.:;!?])\s+(?=[A-Z`(])|(?<=;)\s", text):
        if len(part.split()) >= WORDS_MIN:
            yield Sentence(area, part.strip(), place)


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield each string that is a statement: of a module, class or function, or below a variable."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|fmt:|!)", token.string):
            yield token.start[0], re.sub(r"#\s*noqa[^(]*", "", token.string).lstrip("# ").strip("() ")


def messages(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the parts of a node that can be texts for callers and operators, each with its area."""
    area, roots = "code: error texts", list[ast.expr]()
    if isinstance(node, ast.Raise | ast.Yield):
        roots = [root for root in (node.exc if isinstance(node, ast.Raise) else node.value,) if root]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in LOG_METHODS:
            area, roots = "code: log events", node.args[:1]
        elif node.func.attr in {"add_argument", "add_parser"}:
            helps = [each for each in node.keywords if each.arg in {"help", "description"}]
            yield from (("code: help texts", each.value) for each in helps)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERROR_FUNCTIONS:
        roots = node.args
    yield from ((area, part) for root in roots for part in ast.walk(root))


def of_module(path: Path) -> Iterator[Sentence]:
    source, module = path.read_text("utf-8"), name(path)
    tree, kind = ast.parse(source), "tests" if path.is_relative_to(ROOT / "tests") else "code"
    for docstring in docstrings(tree):
        yield from sentences(f"{kind}: docstrings", str(docstring.value), f"{module}:{docstring.lineno}")
    for line, comment in comments(source):
        yield from sentences(f"{kind}: comments", comment, f"{module}:{line}")
    if kind == "tests":
        for number, line_text in enumerate(source.splitlines(), start=1):
            if test := re.search(r"\bdef test_(\w+)", line_text):
                yield Sentence("tests: names", test[1].replace("_", " "), f"{module}:{number}")
        return
    for area, part in (message for node in ast.walk(tree) for message in messages(node)):
        if isinstance(part, ast.JoinedStr | ast.Constant):
            pieces = part.values if isinstance(part, ast.JoinedStr) else [part]
            values = (piece.value if isinstance(piece, ast.Constant) else "X" for piece in pieces)
            yield Sentence(area, re.sub(r"\s+", " ", "".join(map(str, values))), f"{module}:{part.lineno}")


def of_page(path: Path) -> Iterator[Sentence]:
    area = "ADR" if "adr" in path.parts else "README" if path == ROOT / "README.md" else "other"
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n|\n(?=\|)|\n(?=- )", text):
        yield from sentences(f"docs: {area}", paragraph, name(path))


def of_proto(path: Path) -> Iterator[Sentence]:
    lines = (re.match(r"\s*// ?(.*)", line) for line in path.read_text("utf-8").splitlines())
    for paragraph in re.split(r"\n\s*\n", "\n".join(line[1] if line else "\n" for line in lines)):
        yield from sentences("protos", paragraph, name(path))


@cache
def all_sentences() -> list[Sentence]:
    modules = files(*(f"{folder}/**/*.py" for folder in FOLDERS))
    found = [sentence for path in modules for sentence in of_module(path)]
    found += [sentence for path in files("*.md", "docs/**/*.md") for sentence in of_page(path)]
    return found + [sentence for path in files("protos/**/*.proto") for sentence in of_proto(path)]


def in_area(area: str) -> list[Sentence]:
    words_min = 1 if area == "tests: names" else WORDS_MIN
    return [each for each in all_sentences() if each.area == area and len(each.text.split()) >= words_min]


@pytest.mark.parametrize("area", AREAS)
def test_few_sentences_of_an_area_match_the_lexicon(area: str) -> None:
    found = in_area(area)
    marked = [f"{sentence}  [{'; '.join(sentence.marks)}]" for sentence in found if sentence.marks]
    limit = 0 if area == "code: log events" else MARKED_SHARE_MAX * len(found)
    assert found
    assert len(marked) <= limit, f"{len(marked)} of {len(found)} are marked:\n" + "\n".join(marked)


def test_log_events_are_noun_phrases() -> None:
    events = [each for each in all_sentences() if each.area == "code: log events"]
    verbs = [str(event) for event in events if VERB.search(event.text)]
    assert not verbs, "\n".join(verbs)


def test_names_of_tests_start_with_a_subject() -> None:
    relative = [str(test) for test in in_area("tests: names") if RELATIVE.search(test.text)]
    assert not relative, "\n".join(relative)
