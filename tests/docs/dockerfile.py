"""Runs the steps of the Dockerfile in directories instead of layers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.peers.processes import ROOT, run

_ABSOLUTE: Final = re.compile(r"(?<![\w./*:])/(?=opt/|opt\b|wheels|src|var/)")
_STEP_S: Final = 600


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction and its arguments."""

    name: str
    words: str


def steps() -> list[Step]:
    """Read the Dockerfile, with continued lines joined and without comments."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if line[:1] != "#"]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Step(*line.split(" ", 1)) for line in joined.splitlines() if line]


def context(to: Path) -> None:
    """Copy the files that .dockerignore allows in the build."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").split() if line[0] == "!"]
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *allowed).out
    for name in listed.splitlines():
        (target := to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


@dataclass
class Image:
    """A root directory that the steps change, and the commands that they define."""

    directory: Path
    """Contains the context, the finished stages, and the root of the current stage."""
    environment: dict[str, str] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    """ENTRYPOINT, CMD, and HEALTHCHECK's CMD."""
    workdir: Path = field(init=False)
    _stage: str = ""

    def __post_init__(self) -> None:
        context(self.directory / "context")
        self._start_stage("base")

    @property
    def root(self) -> Path:
        """The root of the current stage; all stages have the same path, as in a container."""
        return self.directory / "root"

    def do(self, step: Step) -> None:
        """Run or record one step; an unknown instruction fails."""
        match step.name:
            case "FROM":
                self._finish_stage()
                self._start_stage(step.words.partition(" AS ")[2])
            case "ENV":
                pairs = (word.partition("=") for word in shlex.split(step.words))
                self.environment |= {name: self._here(value) for name, _, value in pairs}
            case "WORKDIR":
                self.workdir = Path(self._here(step.words))
                self.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(step.words.split())
            case "RUN":
                self._run(step.words)
            case "ENTRYPOINT" | "CMD":
                self.words[step.name] = [self._here(word) for word in json.loads(step.words)]
            case "HEALTHCHECK":
                command = json.loads(step.words.partition(" CMD ")[2])
                self.words[step.name] = [self._here(word) for word in command]
            case _:
                assert step.name in {"ARG", "USER", "EXPOSE", "STOPSIGNAL"}, (
                    f"tests/docs/dockerfile.py cannot run the instruction {step.name}"
                )

    def variables(self) -> dict[str, str]:
        """Return the environment of a container, with this machine's programs at the end of PATH."""
        path = self.environment.get("PATH", "$PATH")
        return {**self.environment, "PATH": path.replace("$PATH", os.defpath)}

    def _start_stage(self, stage: str) -> None:
        self._stage = stage
        self.environment = {}
        self.root.mkdir()
        self.workdir = self.root

    def _finish_stage(self) -> None:
        self.root.rename(self.directory / f"stage-{self._stage}")

    def _here(self, words: str) -> str:
        return _ABSOLUTE.sub(f"{self.root}/", words)

    def _copy(self, words: list[str]) -> None:
        source = self.directory / "context"
        if words[0].startswith("--from="):
            source = self.directory / f"stage-{words.pop(0).removeprefix('--from=')}"
        if words[0].startswith("--chown="):
            words.pop(0)  # the owner of a file matters only in a container
        *names, last = words
        target = self.workdir / self._here(last)
        for name in names:
            found = source / name.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True)
            else:
                into = target / found.name if last.endswith("/") else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)

    def _run(self, command: str) -> None:
        # The base image's `python`, and this machine's settings for pip.
        (programs := self.directory / "programs").mkdir(exist_ok=True)
        if not (python := programs / "python").exists():
            python.symlink_to(Path(getattr(sys, "_base_executable", sys.executable)))
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            ("sh", "-e", "-c", self._here(command)),
            cwd=self.workdir,
            env={**outside, **self.environment, "PATH": f"{programs}:{os.defpath}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_STEP_S,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
