"""The faults that the console has set for the next responses, one for each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .apis import APIS
from .faults import UnknownFault, find_fault

ANSWERS_MAX: Final = 1_000


class ProgrammeError(ValueError):
    """The console cannot use this list of faults; `faults` names everything that is wrong with it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class _Step:
    fault: str
    api: str | None


class Programme:
    """A queue of faults. A request takes the first one that is for its API, or for any and possible."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def add(self, members: Mapping[str, object]) -> int:
        """Add the faults in `{"answers":[{"fault":"…"}],"api":"…"}`, all or none; return its length."""
        api, answers = members.get("api"), members.get("answers")
        faults = [f"{name}: not a member" for name in members if name not in ("api", "answers")]
        if api is not None and api not in list(APIS):
            faults.append(f"api: must be {' or '.join(APIS)}")
        if not isinstance(answers, list) or not answers:
            faults.append("answers: must be a list with at least one member")
            answers = []
        elif len(self._steps) + len(answers) > ANSWERS_MAX:
            faults.append(f"answers: the queue would have more than {ANSWERS_MAX}")
        for at, answer in enumerate(answers[:ANSWERS_MAX]):
            faults += [f"answers[{at}].{wrong}" for wrong in _wrong(answer, api)]
        if faults:
            raise ProgrammeError(faults)
        api_name = api if isinstance(api, str) else None
        self._steps += [_Step(answer["fault"], api_name) for answer in answers]
        return len(self._steps)

    def take(self, api: str) -> str | None:
        """Remove and return the next fault for `api`; None if there is no fault for it."""
        for at, step in enumerate(self._steps):
            if step.api == api or (step.api is None and find_fault(step.fault).applies_to(APIS[api])):
                return self._steps.pop(at).fault
        return None

    def reset(self) -> None:
        """Empty the queue."""
        self._steps.clear()


def _wrong(answer: object, api: object) -> list[str]:
    if not isinstance(answer, dict) or set(answer) != {"fault"} or not isinstance(answer["fault"], str):
        return ["fault: must be a string, and the only member"]
    try:
        fault = find_fault(answer["fault"])
    except UnknownFault as error:
        return [f"fault: {error}"]
    if isinstance(api, str) and api in APIS and not fault.applies_to(APIS[api]):
        return [f"fault: does not apply to {api}"]
    return []
