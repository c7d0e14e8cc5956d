"""Read the settings again while the gateway runs.

Theory of operation
-------------------
**Groups.** What must change together is a group, such as a certificate with its key. A look reads the
`--config` file and every file that a group names. A group that is valid as a whole replaces the one in use;
otherwise all of it stays as it is, the log has the cause, and `Reload.success` is False until every group
is valid. A file that is read while it is written is such a failure, and so is a certificate whose key
follows later: the look after the last change ends it.

**Looks.** A look costs little while no file has changed: it compares device, inode, size and times of each
path, links followed, with those from before the last reading. So it notices a file that was written or
renamed, and a link that points elsewhere: Kubernetes replaces the link `..data`. The times of files advance
in steps of milliseconds, so a failed reading is repeated once without a change.

**The rest.** Other settings need a restart. They are read and checked, too, so that an error shows before
the restart, and the log names those that have another value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..telemetry.logs import log, stack_of
from .cross_checks import faults_between
from .declaration import built, declared, values_of
from .environment import settings_texts
from .reading import read_values
from .reload_groups import CERTIFICATE, GROUPS, SWITCHES, signature_faults
from .risks import risks_of
from .settings import Settings, printable, read_settings
from .settings_file import paths_in, texts_of_file

CONFIG: Final = "--config"
REST: Final = "other settings"
FAILED: Final = "configuration reload failed"
REPLACED: Final = "configuration reloaded"
_DECLARED: Final = dict(declared(Settings))
_IN_GROUPS: Final = frozenset(name for group in GROUPS.values() for name in group.settings)
_FILES: Final = frozenset(name for name in _DECLARED if name.endswith(("_file", "_files")))

Stamp = tuple[int, ...] | None


class Line(NamedTuple):
    """A line of the log."""

    event: str
    members: dict[str, Any]

    def write(self) -> None:
        """Write it with the level of its event."""
        levels = {FAILED: log.error, REPLACED: log.info}
        levels.get(self.event, log.warning)(self.event, **self.members)


class Reload(NamedTuple):
    """What a process uses from now on."""

    settings: Settings
    success: bool
    """Whether everything was valid when it was last read."""


class Reloader:
    """Knows the settings in use, and reads those that have changed."""

    def __init__(
        self,
        environ: Mapping[str, str],
        config_file: Path | None,
        *,
        certificate_faults: Callable[[Settings], Iterable[str]],
    ) -> None:
        """Read the settings; raise SettingsError.

        `certificate_faults` returns why the listener could not use the certificate of settings.
        """
        self._of_environ, self._config_file = settings_texts(environ), config_file
        self._certificate_faults = certificate_faults
        self._of_file = texts_of_file(config_file, [])
        self._known: set[str] = set()
        """The paths at which there was a file: no secret was pasted in their place."""
        self._stamps = self._stamps_now()
        self._repeat = False
        self._lines: list[Line] = []
        self.current = Reload(read_settings(environ, config_file), success=True)

    def look(self, use: Callable[[Reload], None], *, asked: bool = False) -> None:
        """Read everything if a file has changed or an operator has asked; pass on what changed, and log it.

        This can take seconds, and waits for disks. It is called by one thread at a time.
        """
        stamps = self._stamps_now()
        is_changed = stamps != self._stamps
        if not (is_changed or asked or self._repeat):
            return
        before, lines = self.current, list[Line]()
        try:
            lines += self._read()
        except Exception as error:  # noqa: BLE001  (the gateway runs on, and the next look may succeed)
            lines.append(Line(FAILED, {"error_class": type(error).__name__, "stack": stack_of(error)}))
        success = all(line.event != FAILED for line in lines)
        self.current = self.current._replace(success=success)
        if self.current != before:
            use(self.current)
        for line in lines:
            # The same failure is logged once.
            if asked or line.event == REPLACED or line not in self._lines:
                line.write()
        if success and self.current.settings is before.settings and (asked or not before.success):
            log.info("configuration unchanged")
        self._stamps, self._lines, self._repeat = stamps, lines, is_changed and not success

    def _read(self) -> Iterator[Line]:
        """Replace every group that has changed and is valid; yield what is to be logged."""
        faults: list[str] = []
        of_file = texts_of_file(self._config_file, faults)
        yield from self._failures(CONFIG, faults)
        if not faults:
            self._of_file = of_file
        yield from self._overridden()
        values, invalid = read_values(_DECLARED, self._of_file, self._of_environ, self._config_file)
        before = self.current.settings
        for name, group in GROUPS.items():
            new = {each: values[each] for each in group.settings if each in values}
            if faults := [fault for each, fault in invalid if each in group.settings]:
                yield from self._failures(name, faults)
            else:
                yield from self._replace(name, new)
        used = dict(values_of(self.current.settings))
        rest = {each: value for each, value in values.items() if each not in _IN_GROUPS}
        faults = [fault for each, fault in invalid if each not in _IN_GROUPS]
        yield from self._failures(REST, faults or list(faults_between({**used, **rest})))
        changed = [each for each, value in rest.items() if value != used[each]]
        changed += [each for each in SWITCHES if _is_switched(each, values, used)]
        if changed:
            yield Line("restart needed", {"setting": ", ".join(changed).upper()})
        if self.current.settings is not before:
            now = datetime.now(UTC)
            risks = {*risks_of(self.current.settings, now)} - {*risks_of(before, now)}
            yield from (Line("configuration risk", {"cause": risk}) for risk in sorted(risks))

    def _replace(self, group: str, new: Mapping[str, object]) -> Iterator[Line]:
        """Use the new values of a group if they differ and are valid."""
        used = dict(values_of(self.current.settings))
        values = {**used, **new}
        if values == used or any(_is_switched(each, new, used) for each in SWITCHES):
            return
        faults = list(faults_between(values))
        settings = built(Settings, values)
        if not faults:
            self_test = self._certificate_faults if group == CERTIFICATE else signature_faults
            faults = list(self_test(settings))
        yield from self._failures(group, faults)
        if not faults:
            self.current = self.current._replace(settings=settings)
            yield Line(REPLACED, {"group": group, **GROUPS[group].facts(settings)})

    def _failures(self, group: str, faults: list[str]) -> Iterator[Line]:
        """Yield a failure for each error; the first word of an error is the setting."""
        for fault in map(printable, faults):
            setting = fault.split(" ")[0]
            files = self._paths(setting.lower())
            found = [path for path in files if path in self._known]
            where = {"file": ", ".join(found)} if found else {}
            yield Line(FAILED, {"group": group, "setting": setting, **where, "cause": fault})

    def _overridden(self) -> Iterator[Line]:
        """Yield the settings of the file that have another value in the environment, which wins."""
        environ = self._of_environ
        names = [each for each, text in self._of_file.items() if environ.get(each, text) != text]
        if names:
            yield Line("settings overridden by the environment", {"setting": ", ".join(names).upper()})

    def _paths(self, setting: str) -> list[str]:
        if setting == CONFIG:
            return [] if self._config_file is None else [str(self._config_file)]
        text = (self._of_file | self._of_environ).get(setting)
        return paths_in(text) if setting in _FILES and isinstance(text, str) else []

    def _stamps_now(self) -> dict[str, Stamp]:
        paths = [path for setting in (CONFIG, *sorted(_FILES)) for path in self._paths(setting)]
        stamps = {path: _stamp(path) for path in paths}
        self._known |= {path for path, stamp in stamps.items() if stamp is not None}
        return stamps


def _stamp(path: str) -> Stamp:
    """Return what changes with a file; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  (it is called often, and a path from a setting may be invalid)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_switched(name: str, new: Mapping[str, object], used: Mapping[str, object]) -> bool:
    return name in new and (new[name] is None) != (used[name] is None)
