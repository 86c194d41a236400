"""Reading a run folder: attempts become one series, damage becomes a note."""

import json
from pathlib import Path

import pytest

from fake_run import FakeRun
from prism_operator.report.charts import make_charts
from prism_operator.report.folder import read_run
from prism_operator.report.lineage import chain
from prism_operator.report.record import Attempt, Series, StageRecord
from prism_trainer.contract.report import MetricsLine


def attempt(number: int, values: dict[int, float]) -> Attempt:
    lines = (MetricsLine(step=step, attempt=number, time="t", metrics={"loss": value}) for step, value in values.items())
    return Attempt(number, lines=tuple(lines))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun(tmp_path_factory.mktemp("run")).finished().with_baseline().folder


def test_a_later_attempt_replaces_the_steps_it_repeats_and_those_that_were_lost() -> None:
    stage = StageRecord("sft", (attempt(1, {1: 9, 2: 8, 3: 7, 4: 6}), attempt(2, {3: 5, 4: 4}), attempt(3, {4: 3})))
    assert stage.series("loss") == Series((1, 2, 3, 4), (9, 8, 5, 3))


def test_steps_beyond_the_point_of_resumption_are_not_part_of_the_curve(finished: Path) -> None:
    """The first attempt of alignment reached step 26, and the second went on from 20."""
    alignment = read_run(finished).stage("alignment")
    assert alignment is not None
    assert [line.attempt for line in alignment.lines] == [1] * 20 + [2] * 20


def test_an_attempt_that_logged_nothing_takes_nothing_away() -> None:
    assert StageRecord("sft", (attempt(1, {1: 9, 2: 8}), Attempt(2))).series("loss") == Series((1, 2), (9, 8))


def test_a_metric_may_be_missing_at_some_steps(finished: Path) -> None:
    warm_up = read_run(finished).stage("discriminator")
    assert warm_up is not None
    assert warm_up.series("held_out/caption_gap").steps == (1, 10, 20, 30, 40, 50, 60)
    assert warm_up.series("no such metric") == Series()


def test_attempts_are_ordered_by_number_and_not_by_name(tmp_path: Path) -> None:
    for number in (9, 10, 1):
        (tmp_path / "stages" / "sft" / f"attempt-{number}").mkdir(parents=True)
    (tmp_path / "stages" / "sft" / "notes").mkdir()
    assert [attempt.number for attempt in read_run(tmp_path).stages[0].attempts] == [1, 9, 10]


def test_a_baseline_lies_under_the_main_line_at_the_same_number_of_steps(finished: Path) -> None:
    starts = {chart.spec.name: {stage: start for stage, _, start, _ in chart.bands} for chart in make_charts(read_run(finished))}
    assert starts["rollout-accuracy"] == {"alignment": 0, "rlvr": 40, "rlvr-baseline": 0}
    assert starts["discriminator-gap"] == {"discriminator": 0, "alignment": 60}


def test_a_chart_starts_at_zero_where_no_curve_does(tmp_path: Path) -> None:
    reward = next(chart for chart in make_charts(read_run(FakeRun(tmp_path).finished().folder)) if chart.spec.name == "reward")
    assert reward.bands == (("rlvr", "rlvr", 0, 60),)


def test_the_main_line_is_the_longest_chain_and_not_the_last_stage(finished: Path) -> None:
    assert [row.stage for row in read_run(finished).main_line] == ["sft", "alignment", "rlvr"]


def test_the_chain_of_checkpoints_goes_through_the_policies_back_to_the_base_model(finished: Path) -> None:
    assert [(link.stage, link.known) for link in chain(read_run(finished))] == [
        ("model", False),
        ("sft", True),
        ("alignment", True),
        ("rlvr", True),
    ]


def test_a_finished_run_gives_no_notes(finished: Path) -> None:
    assert read_run(finished).notes == ()


def test_half_a_line_at_the_end_of_metrics_is_left_out_and_noted(tmp_path: Path) -> None:
    run = FakeRun(tmp_path).running("sft", 12)
    metrics = run.folder / "stages" / "sft" / "attempt-1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    read = read_run(run.folder)
    assert read.stages[0].series("loss").steps == tuple(range(1, 12))
    assert any("metrics.jsonl has 1 line(s)" in note for note in read.notes)


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", '{"status": 3}', "null", "\x00"])
@pytest.mark.parametrize(
    "file", ["status.json", "results.json", "stages/rlvr/attempt-1/job.json", "checkpoints/rlvr/attempt-1/step-000060/manifest.json"]
)
def test_a_damaged_file_becomes_a_note_and_the_rest_is_read(tmp_path: Path, file: str, damage: str) -> None:
    folder = FakeRun(tmp_path).finished().folder
    (folder / file).write_text(damage)
    read = read_run(folder)
    assert any(note.startswith(file) for note in read.notes) or (file == "results.json" and damage == "null")
    assert [stage.name for stage in read.stages][:3] == ["sft", "discriminator", "alignment"]


def test_a_manifest_that_was_changed_is_noted(tmp_path: Path) -> None:
    manifest = FakeRun(tmp_path).finished().folder / "checkpoints" / "rlvr" / "attempt-1" / "step-000060" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "seed": 5}))
    assert any("was changed after it was committed" in note for note in read_run(tmp_path).notes)


def test_an_empty_folder_is_a_run_of_which_nothing_is_known(tmp_path: Path) -> None:
    read = read_run(tmp_path)
    assert (read.name, read.stages, read.rows, read.checkpoints) == (tmp_path.name, (), (), ())
    assert len(read.notes) == 2
