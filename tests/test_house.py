"""The rules of the house that no linter knows, each held by one test."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CODE = ("service", "clients", "sandbox")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

FOLDERS = (*CODE, "tests", "tools", "docs", "deploy", "bench", "protos")

FILE_LINES_MAX = 250
FUNCTION_LINES_MAX = 40
README_LINES_MAX = 150
# Each exception with its reason: "service/x.py" for a file, "service/x.py:function" for a function.
LONG: dict[str, str] = {}
NAMES_THAT_SAY_NOTHING = {"util", "helper", "manager", "handler", "common", "base", "misc"}
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def ours(path: Path) -> bool:
    """Whether a path is written by people here: not hidden, not installed, not made."""
    parts = path.relative_to(ROOT).parts
    made = {"__pycache__", "node_modules", "build", "dist", "target"}
    return not any(part.startswith(".") or part in made or part.endswith(".egg-info") for part in parts)


def files(*patterns: str) -> list[Path]:
    return sorted(
        {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file() and ours(path)}
    )


def modules() -> list[Path]:
    return files(*(f"{folder}/**/*.py" for folder in CODE))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text("utf-8")))


# -- size


def lengths() -> Iterator[tuple[str, int, int]]:
    """What has a length, that length, and the most that it may be."""
    for path in modules():
        yield name(path), len(path.read_text("utf-8").splitlines()), FILE_LINES_MAX
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{name(path)}:{node.name}", lines, FUNCTION_LINES_MAX


def test_files_and_functions_are_short() -> None:
    long = {what: lines for what, lines, lines_max in lengths() if lines > lines_max}
    too_long = {what: lines for what, lines in long.items() if what not in LONG}
    assert too_long == {}, f"Over {FILE_LINES_MAX} lines a file, {FUNCTION_LINES_MAX} a function."


def test_exceptions_to_the_lengths_are_still_needed() -> None:
    needed = {what for what, lines, lines_max in lengths() if lines > lines_max}
    assert sorted(LONG.keys() - needed) == []


def test_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES_MAX


# -- names and words


def test_no_module_has_a_name_that_says_nothing() -> None:
    words = {name(path): set(re.split(r"[_/.]", name(path).removesuffix(".py"))) for path in modules()}
    vague = NAMES_THAT_SAY_NOTHING | {f"{word}s" for word in NAMES_THAT_SAY_NOTHING}
    assert [module for module, said in words.items() if said & vague] == []


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TO[D]O|FIX[M]E)\b")
    texts = files("*.*", "Makefile", *(f"{folder}/**/*.*" for folder in FOLDERS))
    marked = [
        f"{name(path)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1)
        if mark.search(line)
    ]
    assert marked == []


# -- foreign libraries

OWNERS: dict[str, tuple[str, ...]] = {
    "alipayhk": ("clients/linkage/", "service/"),
    "aiohttp": (
        "clients/alipayhk/connections.py",
        "clients/alipayhk/pairing.py",
        "clients/alipayhk/transport.py",
        "sandbox/",
        "service/server/admin.py",
    ),
    "cryptography": (
        "clients/alipayhk/diagnosis/mistakes.py",
        "clients/alipayhk/wire/crypto.py",
        "clients/alipayhk/wire/keys.py",
        "sandbox/options.py",
        "service/commands/keys.py",
        "service/config/",
        "service/credentials/",
        "service/ledger/vault.py",
    ),
    "clients": ("sandbox/", "service/"),
    "google": ("clients/linkage/", "service/"),
    "grpc": (
        "clients/linkage/",
        "service/commands/",
        "service/config/result_codes_file.py",
        "service/outcomes/",
        "service/server/",
    ),
    "prometheus_client": (
        "service/commands/workers.py",
        "service/server/admin.py",
        "service/telemetry/",
    ),
    "structlog": ("service/telemetry/",),
    "yarl": ("clients/alipayhk/transport.py",),
}
"""Each library, and each package that others import, with the modules or folders that may import it."""


def imports(path: Path) -> Iterator[str]:
    """Yield the top package of every absolute import."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("library", OWNERS)
def test_only_its_owners_import_a_foreign_library(library: str) -> None:
    importing = {name(path) for path in modules() if library in imports(path)}
    assert [module for module in sorted(importing) if not module.startswith(OWNERS[library])] == []
    assert [owner for owner in OWNERS[library] if not any(m.startswith(owner) for m in importing)] == []


# -- the environment


def reads_environment(node: ast.AST) -> bool:
    forbidden = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr in forbidden
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(at.name in forbidden for at in node.names)
    )


def test_only_one_module_reads_the_environment() -> None:
    touching = {name(path) for path in modules() for node in nodes(path) if reads_environment(node)}
    # A client has no settings of the gateway's; its command line has an environment of its own.
    assert touching <= {"service/config/environment.py", "clients/linkage/alipayhk_linkage/connection.py"}


def settings_in_the_tables() -> Iterator[tuple[str, str, str]]:
    """The name, default and meaning in each row of every table whose first column is headed "setting"."""
    for path in files("README.md", "docs/**/*.md"):
        for table in re.findall(r"(?:^\|.*\n)+", path.read_text("utf-8"), flags=re.MULTILINE):
            head, _, *rows = (line.replace("`", "").split("|")[1:-1] for line in table.splitlines())
            if re.fullmatch(r"settings?", head[0].strip(), re.IGNORECASE):
                for row in rows:
                    setting, default, meaning = (cell.strip() for cell in row)
                    yield setting, default, meaning


def test_documented_settings_have_the_names_defaults_and_meanings_of_the_code() -> None:
    declaration = importlib.import_module("service.config.declaration")
    settings = importlib.import_module("service.config.settings")
    defaults = {None: "", declaration.REQUIRED: "required"}
    fields = [
        (
            setting.upper(),
            defaults.get(field.metadata["default"], field.metadata["default"]),
            field.metadata["meaning"],
        )
        for setting, field in declaration.declared(settings.Settings)
    ]
    assert sorted(settings_in_the_tables()) == sorted(fields)


# -- documents


def prose(path: Path) -> str:
    """A Markdown file without its code, in which a link is no link."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()]", "", code[0]), text)


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.+?) *#*$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links() -> Iterator[str]:
    for path in files(
        "*.md", *(f"{folder}/**/*.md" for folder in (*CODE, "docs", "deploy", "tests", "bench"))
    ):
        for link in re.findall(r"\]\(<?([^)>\s]+)", prose(path)):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            to, _, anchor = link.partition("#")
            target = (path.parent / to).resolve() if to else path
            if not target.exists() or not target.is_relative_to(ROOT):
                yield f"{name(path)} -> {link}"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{name(path)} -> {link} (no such heading)"


def test_every_relative_link_in_the_documents_leads_somewhere() -> None:
    assert list(dead_links()) == []


def test_changelog_keeps_its_shape() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    assert lines[0] == "# Changelog"
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    releases = [
        re.fullmatch(r"## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})", line) for line in versions[1:]
    ]
    assert all(releases), versions
    numbers = [tuple(map(int, release[1].split("."))) for release in releases if release]
    assert numbers == sorted(numbers, reverse=True)
    assert {line[4:] for line in lines if line.startswith("### ")} <= CHANGES
    if numbers:
        assert PYPROJECT["project"]["version"] == ".".join(map(str, numbers[0]))


def test_every_reason_is_on_the_page_of_outcomes() -> None:
    proto = (ROOT / "protos/alipayhk/linkage/v1/error_reason.proto").read_text("utf-8")
    reasons = set(re.findall(r"^  ERROR_REASON_(\w+) = [1-9]", proto, flags=re.MULTILINE))
    page = (ROOT / "docs/outcomes.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)`", page, flags=re.MULTILINE)) == reasons


# -- packaging


def test_every_package_is_packaged() -> None:
    roots = {**{folder: ROOT / folder for folder in CODE}, "alipayhk": ROOT / "gen" / "python" / "alipayhk"}
    distributions = {path.parent for path in files("*/**/pyproject.toml")}
    found = {
        ".".join((root, *init.parent.relative_to(folder).parts))
        for root, folder in roots.items()
        for init in folder.rglob("__init__.py")
        if ours(init) and not distributions & set(init.parents)
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(distribution): version for distribution, version in found}


def declared(*groups: str) -> list[Requirement]:
    texts = list(PYPROJECT["project"]["dependencies"])
    texts += [text for group in groups for text in PYPROJECT["dependency-groups"][group]]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("lock", "groups"),
    [("runtime", ()), ("dev", ("build", "test", "lint")), ("oldest", ("build", "test", "generate"))],
)
def test_lock_holds_a_version_within_every_declared_range(lock: str, groups: tuple[str, ...]) -> None:
    pinned = pins(lock)
    outside = [
        str(requirement)
        for requirement in declared(*groups)
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]
    assert outside == [], "run `make lock`"


def test_oldest_lock_holds_the_low_end_of_every_declared_range() -> None:
    pinned = pins("oldest")
    higher = {
        requirement.name: pinned[canonicalize_name(requirement.name)]
        for requirement in declared("build", "test", "generate")
        if not any(
            Requirement(f"{requirement.name}=={floor.version}").specifier.contains(
                pinned[canonicalize_name(requirement.name)]
            )
            for floor in requirement.specifier
            if floor.operator in {">=", "=="}
        )
    }
    assert higher == {}, "no such version can be installed: raise the low end in pyproject.toml"


def test_what_the_code_is_generated_by_is_declared_and_locked() -> None:
    declares = re.search(
        r'^GRPCIO_TOOLS = "(.+)"$', (ROOT / "tools" / "generate.py").read_text(), re.MULTILINE
    )
    assert declares
    assert PYPROJECT["dependency-groups"]["generate"] == [f"grpcio-tools=={declares[1]}"]
    assert pins("oldest")["grpcio-tools"] == declares[1]


def test_environments_share_the_versions_of_what_production_runs() -> None:
    assert pins("runtime").items() | pins("build").items() <= pins("dev").items()
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]
