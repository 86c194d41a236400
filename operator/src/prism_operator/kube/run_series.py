"""The Prometheus series of the runs, made when they are asked for: kept as gauges they would cost ten times what a run's own facts do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from prism_operator.api import PrismRunStatus
from prism_operator.kube.inventory import RunKey


class _Row(NamedTuple):
    """Of one run. Most runs share their parts with others, so each part is kept once."""

    info: tuple[str, str]
    """Stage and summary."""
    conditions: tuple[tuple[str, str], ...]
    """Type and status."""
    progress: tuple[tuple[str, float], ...]
    attempts: tuple[tuple[str, int], ...]


class RunSeries(Collector):
    """Asked by the metrics' own thread while the event loop goes on, so it reads a copy."""

    def __init__(self) -> None:
        self._rows: dict[RunKey, _Row] = {}

    def put(self, key: RunKey, status: PrismRunStatus) -> None:
        """In place of what was there."""
        self._rows[key] = _Row(
            info=(status.stage, status.summary),
            conditions=tuple((condition.type, condition.status) for condition in status.conditions),
            progress=tuple((s.name, min(1.0, s.step / s.total_steps)) for s in status.stages if s.total_steps),
            attempts=tuple((s.name, s.attempts[-1].number) for s in status.stages if s.attempts),
        )

    def drop(self, key: RunKey) -> None:
        """The run is gone: so are its series."""
        self._rows.pop(key, None)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The names, without asking for the values."""
        run = ["namespace", "name"]
        yield GaugeMetricFamily("prism_run_info", "A PrismRun; always 1.", labels=[*run, "stage", "summary"])
        yield GaugeMetricFamily("prism_run_condition", "1 for the condition's present status.", labels=[*run, "type", "status"])
        yield GaugeMetricFamily("prism_stage_progress_ratio", "Share of the stage's steps that are done.", labels=[*run, "stage"])
        yield GaugeMetricFamily("prism_stage_attempt", "Number of the stage's last attempt.", labels=[*run, "stage"])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All series of all runs."""
        info, conditions, progress, attempts = self.describe()
        for key, row in list(self._rows.items()):
            info.add_metric([*key, *row.info], 1)
            for condition in row.conditions:
                conditions.add_metric([*key, *condition], 1)
            for stage, share in row.progress:
                progress.add_metric([*key, stage], share)
            for stage, number in row.attempts:
                attempts.add_metric([*key, stage], number)
        yield from (info, conditions, progress, attempts)
