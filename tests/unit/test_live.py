"""The progress display, with a clock and a console of its own."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from prism_operator.api import AttemptStatus, PrismRunStatus, StageStatus
from prism_operator.live import WIDE, RunDisplay, render, watched

START = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def make_stage(state: str, step: int = 0, kind: str = "sft", since: float = 0, until: float | None = None, **fields: object) -> StageStatus:
    attempts = [] if state == "Pending" else [_attempt(1, since, until)]
    return StageStatus.model_validate(
        {"name": kind, "kind": kind, "state": state, "configDigest": "x", "step": step, "totalSteps": 100, "attempts": attempts, **fields}
    )


def _attempt(number: int, since: float, until: float | None) -> AttemptStatus:
    ended = at(until).isoformat() if until is not None else None
    return AttemptStatus(number=number, outcome="Running", started_at=at(since).isoformat(), finished_at=ended)


def make_run(*stages: StageStatus, summary: str = "Running", message: str = "") -> PrismRunStatus:
    return PrismRunStatus.model_validate({"summary": summary, "progress": 43, "message": message, "stages": stages})


class Plain:
    """A display that prints lines, and a clock to set."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.now = 0.0
        self.display = RunDisplay(Console(file=self.file, width=200), plain=True, clock=lambda: at(self.now))

    def show(self, seconds: float, *stages: StageStatus, message: str = "") -> list[str]:
        """The lines that this update added."""
        before = len(self.file.getvalue())
        self.now = seconds
        self.display.update(make_run(*stages, message=message))
        return self.file.getvalue()[before:].replace("\N{NO-BREAK SPACE}", " ").splitlines()


def test_a_stage_gets_a_line_when_it_starts_and_when_it_ends() -> None:
    plain = Plain()
    assert plain.show(0, make_stage("Pending")) == []
    assert plain.show(1, make_stage("Running", since=1)) == ["[    1 s] sft            started, attempt 1"]
    assert plain.show(9, make_stage("Succeeded", 100, since=1, until=9, metrics={"loss": 0.2})) == [
        "[    9 s] sft            succeeded after 100 steps in 8 s: loss 0.200"
    ]
    assert plain.show(10, make_stage("Succeeded", 100, since=1, until=9)) == []


def test_a_line_comes_every_tenth_of_a_stage() -> None:
    plain = Plain()
    plain.show(0, make_stage("Running"))
    lines = [line for step in range(1, 101) for line in plain.show(step / 10, make_stage("Running", step))]
    assert len(lines) == 10
    assert lines[0].endswith("running 10/100 (10 %)")


def test_a_line_comes_every_15_seconds_of_a_slow_stage_also_without_progress() -> None:
    plain = Plain()
    plain.show(0, make_stage("Running"))
    assert [second for second in range(61) if plain.show(second, make_stage("Running", 3, phase="sampling"))] == [15, 30, 45, 60]


def test_a_run_of_days_does_not_print_a_line_every_15_seconds() -> None:
    plain = Plain()
    plain.show(86_000, make_stage("Running"))
    assert [second for second in range(86_400, 87_900, 5) if plain.show(second, make_stage("Running", 3))] == [86_870, 87_750]


def test_a_line_tells_phase_steps_time_left_and_metrics() -> None:
    plain = Plain()
    plain.show(0, make_stage("Running", kind="rlvr"))
    stage = make_stage(
        "Running", 40, kind="rlvr", phase="sampling", etaSeconds=88, metrics={"reward/mean": 0.61, "actor/entropy": 0.3, "x": 1}
    )
    assert plain.show(30, stage) == ["[   30 s] rlvr           sampling 40/100 (40 %), 1m 28s left: reward 0.610, entropy 0.300"]


def test_trouble_is_told_with_its_sentence() -> None:
    plain = Plain()
    plain.show(0, make_stage("Running"))
    assert plain.show(5, make_stage("Retrying", 20), message="Attempt 1 lost its process.") == [
        "[    5 s] sft            retrying: Attempt 1 lost its process."
    ]
    assert plain.show(6, make_stage("Failed", 20), message="No retries are left.")[0].endswith("failed: No retries are left.")


def test_an_attempt_that_failed_and_was_followed_at_once_is_told() -> None:
    plain = Plain()
    plain.show(0, make_stage("Running"))
    failed = {"number": 1, "outcome": "Failed", "failureClass": "NodeLost", "message": "its process was killed by SIGKILL"}
    again = make_stage("Running", 20, attempts=[failed, _attempt(2, 5, None)])
    line = "[    5 s] sft            started, attempt 2; attempt 1 failed (NodeLost): its process was killed by SIGKILL"
    assert plain.show(5, again) == [line]
    assert plain.show(6, again) == []


def test_what_an_earlier_run_completed_or_skips_is_said_once() -> None:
    plain = Plain()
    assert [line[10:] for line in plain.show(0, make_stage("Succeeded", 100), make_stage("Skipped", kind="rlvr"))] == [
        "sft            is complete already (100 steps)",
        "rlvr           skipped, its checkpoint is given",
    ]


def test_markup_in_a_message_is_printed_as_it_is() -> None:
    assert "[/red]" in Plain().show(0, make_stage("Failed"), message="found [/red]")[0]


def shown(status: PrismRunStatus, width: int, seconds: float = 133) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(render(status, at(seconds), width))
    return capture.get().replace("\N{NO-BREAK SPACE}", " ").splitlines()


RUN = make_run(
    make_stage("Succeeded", 100, since=0, until=64),
    make_stage("Running", 33, kind="alignment", since=100, phase="sampling", etaSeconds=88, metrics={"critic/caption_gap": 2.3}),
    make_stage("Pending", kind="rlvr", totalSteps=0),
)


def test_a_terminal_shows_a_row_for_each_stage_and_the_run_below() -> None:
    lines = [" ".join(line.split()) for line in shown(RUN, 150)]
    assert lines[0] == "✓ sft ━━━━━━━━━━━━━━━━━━ 100/100 1m 04s"
    assert lines[1] == "▸ alignment ━━━━━╸ 33/100 33 s 1m 28s left sampling caption gap 2.30"
    assert lines[2:] == ["· rlvr", "Running, 43 % of the run, 1m 37s in stages"]


@pytest.mark.parametrize(("width", "num_lines"), [(60, 5), (80, 5), (WIDE - 1, 5), (WIDE, 4), (200, 4)])
def test_metrics_have_a_line_of_their_own_where_the_row_has_no_room_for_them(width: int, num_lines: int) -> None:
    lines = shown(RUN, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == num_lines
    assert not any("…" in line for line in lines)


def test_a_second_attempt_is_named_and_the_time_between_attempts_does_not_count() -> None:
    stage = make_stage("Running", 40).model_copy(update={"attempts": (_attempt(1, 0, 10), _attempt(2, 100, None))})
    assert " ".join(shown(make_run(stage), 140, seconds=105)[0].split()).endswith("40/100 15 s running, attempt 2")


def test_metrics_nobody_chose_are_shown_as_they_are_named() -> None:
    assert watched(make_stage("Running", kind="sft", metrics={"odd": 1.0})) == "odd 1.00"
    assert (
        watched(make_stage("Running", kind="evaluation", metrics={"format_rate/sft": 1.0, "accuracy/sft": 0.5})) == "accuracy of sft 0.500"
    )


def test_on_a_terminal_the_display_redraws_and_leaves_the_last_state() -> None:
    file = io.StringIO()
    with RunDisplay(Console(file=file, force_terminal=True, width=140), plain=False, clock=lambda: at(133)) as display:
        display.update(RUN)
    assert "alignment" in file.getvalue()
    assert file.getvalue().endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_file_is_never_drawn_on() -> None:
    file = io.StringIO()
    with RunDisplay(Console(file=file), plain=False, clock=lambda: at(0)) as display:
        display.update(RUN)
    assert "\x1b" not in file.getvalue()


def test_an_evaluation_that_has_measured_nothing_yet_shows_no_counters() -> None:
    plain = Plain()
    plain.show(0, make_stage("Running", kind="evaluation"))
    (line,) = plain.show(20, make_stage("Running", 8, kind="evaluation", phase="evaluating", metrics={"symbolic/same": 0.0}))
    assert line.endswith("evaluating 8/100 (8 %)")
