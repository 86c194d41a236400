"""PrismRuns by name, with a hint where there is none of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from prism_operator.api import PrismRunStatus
from prism_operator.errors import ClusterError, NoSuchRunError
from prism_operator.kubectl.door import Door
from prism_operator.kubectl.refusals import RefusedError
from prism_operator.names import GROUP, PLURAL, VERSION
from prism_operator.parse import read_status
from prism_operator.reasons import FINISHED
from prism_operator.timestamps import parse_time

SILENT_SECONDS = 10.0
"""Without a word from the operator, after which somebody should look whether it is there."""
API = f"/apis/{GROUP}/{VERSION}"


@dataclass(frozen=True)
class Run:
    """The object as the API server has it, and its status as far as it is understood."""

    raw: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the object."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Of the object."""
        return str(self.raw["metadata"]["namespace"])

    @property
    def generation(self) -> int:
        """Counts changes of the spec."""
        return int(self.raw["metadata"].get("generation", 1))

    @property
    def status(self) -> PrismRunStatus:
        """Empty where the operator has not written any."""
        return read_status(self.raw) or PrismRunStatus()

    @property
    def is_finished(self) -> bool:
        """For good: a finished run is never opened again."""
        return self.status.is_true(FINISHED)

    @property
    def is_current(self) -> bool:
        """Whether the operator has seen the spec as it is now."""
        return self.status.observed_generation >= self.generation


def unseen(run: Run, now: datetime) -> str:
    """What to do where the operator says nothing; empty where it has spoken."""
    if run.is_current:
        return ""
    created = parse_time(run.raw["metadata"].get("creationTimestamp")) or now
    hint = " See whether it runs: kubectl get deployment -A -l app.kubernetes.io/name=prism"
    if run.status.observed_generation:
        return "The operator has not seen the last change of its spec yet."
    return f"The operator has not looked at it yet.{hint if (now - created).total_seconds() > SILENT_SECONDS else ''}"


def runs_path(namespace: str | None, name: str | None = None) -> str:
    """Without a namespace, of all of them."""
    place = f"{API}/namespaces/{namespace}/{PLURAL}" if namespace else f"{API}/{PLURAL}"
    return f"{place}/{name}" if name else place


def list_runs(door: Door, everywhere: bool = False) -> list[Run]:
    """By namespace and name."""
    found = door.get(runs_path(None if everywhere else door.namespace)).get("items") or []
    return sorted((Run(_clean(item)) for item in found), key=lambda run: (run.namespace, run.name))


def read_run(door: Door, name: str) -> Run:
    """NoSuchRunError says what there is instead."""
    name = bare_name(name)
    try:
        return Run(_clean(door.get(runs_path(door.namespace, name))))
    except RefusedError as error:
        if error.status != 404 or not error.reason:
            raise
    raise NoSuchRunError(f"there is no PrismRun '{name}' in namespace '{door.namespace}'{_hint(door, name)}")


def bare_name(name: str) -> str:
    """`kubectl get -o name` prints `prismrun.prism.dev/demo`."""
    kind, slash, rest = name.partition("/")
    return rest if slash and kind.partition(".")[0] in ("prismrun", PLURAL) else name


def _hint(door: Door, name: str) -> str:
    """Never a reason to fail on its own."""
    try:
        here = [run.name for run in list_runs(door)]
    except ClusterError:
        return ""
    close = get_close_matches(name, here, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    try:
        elsewhere = [run.namespace for run in list_runs(door, everywhere=True) if run.name == name]
    except ClusterError:
        elsewhere = []
    if elsewhere:
        return f"; there is one in namespace '{elsewhere[0]}': give -n {elsewhere[0]}"
    return f"; there are: {', '.join(here[:10])}{', ...' if len(here) > 10 else ''}" if here else ", nor any other"


def _clean(raw: dict[str, Any]) -> dict[str, Any]:
    """Without the bookkeeping of server-side apply, as kubectl shows objects."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    return {**raw, "metadata": metadata}
