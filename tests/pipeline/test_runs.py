"""`prism run` with real stages: to the end, through kills, and into every kind of trouble."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from mini_runs import kill, wait_until
from prism_trainer.checkpoints import read_manifest
from stage_attempts import job_of, run_stage

pytestmark = pytest.mark.pipeline


def test_a_run_goes_through_every_stage_and_leaves_what_it_promises(finished):
    out = finished.folder / "out"
    assert set(finished.finals()) == {"sft", "discriminator", "alignment", "rlvr", "evaluation"}
    rows = json.loads((out / "results.json").read_text())
    assert [row["stage"] for row in rows] == ["sft", "alignment", "rlvr"]
    keys = {"stage", "steps", "seconds", "accuracy", "ci_low", "ci_high", "format_rate", "mean_tokens", "manifest"}
    assert all(keys <= row.keys() and row["ci_low"] <= row["accuracy"] <= row["ci_high"] for row in rows)
    status = json.loads((out / "status.json").read_text())["status"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert (conditions["Finished"], conditions["Succeeded"], status["summary"]) == ("True", "True", "Succeeded")
    assert (out / "report.html").stat().st_size > 10_000 and list((out / "plots").glob("*.png"))


def test_every_policy_it_leaves_loads_as_a_plain_hugging_face_directory(finished):
    for stage in ("sft", "alignment", "rlvr"):
        (folder,) = (finished.folder / "out" / "checkpoints" / stage).glob("attempt-1/step-*/policy")
        assert AutoModelForImageTextToText.from_pretrained(folder).config.model_type == "qwen3_vl"


def test_the_chain_of_parents_leads_back_to_the_base_model(finished):
    files = (finished.folder / "out" / "checkpoints").glob("*/attempt-*/step-*/manifest.json")
    manifests = {manifest.digest: manifest for manifest in (read_manifest(file.parent) for file in files)}
    (last,) = (manifest for manifest in manifests.values() if manifest.stage == "rlvr")
    chain = [last.stage]
    while chain[-1] != "model":
        parent = next(parent for parent in last.parents if parent.stage != "discriminator")
        chain.append(parent.stage)
        last = manifests.get(parent.digest)
    assert chain == ["rlvr", "alignment", "sft", "model"]


def test_running_a_finished_run_again_does_nothing(finished):
    before = {file: file.stat().st_mtime_ns for file in (finished.folder / "out" / "checkpoints").rglob("manifest.json")}
    code, _ = finished.finish()
    assert code == 0 and before == {file: file.stat().st_mtime_ns for file in before}
    assert finished.finals().keys() == {"sft", "discriminator", "alignment", "rlvr", "evaluation"}


def _steps_done(folder: Path) -> list[tuple[int, list[int]]]:
    """By attempt, the steps it reports."""
    done = []
    for file in sorted(folder.glob("attempt-*/metrics.jsonl"), key=lambda file: int(file.parent.name.removeprefix("attempt-"))):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        done.append((lines[0]["attempt"], [line["step"] for line in lines]))
    return done


def _disturb(run, disturbance: str, seconds: float) -> None:
    """Start the run, let it go on that long after a stage lives, and kill what is named."""
    process = run.start()

    def is_over() -> bool:
        return process.poll() is not None

    assert wait_until(lambda: run.stage_processes() or is_over())
    wait_until(is_over, seconds)
    if disturbance == "interrupt":
        process.send_signal(signal.SIGINT)
    if disturbance == "stage" and run.stage_processes():
        kill(run.stage_processes()[0])
        wait_until(is_over, seconds=2)
    if disturbance != "interrupt" and not is_over():
        kill(process)
    process.communicate(timeout=300)


def test_killed_at_random_points_it_ends_with_the_same_checkpoints(finished, make_run):
    """The runner and the stage are killed in turn, once it is interrupted; the digests are those of the undisturbed run."""
    run, rng = make_run("killed"), random.Random(7)
    committed: dict[str, tuple[str, int]] = {}
    for disturbance in ("stage", "runner", "interrupt", "stage", "runner", "stage"):
        _disturb(run, disturbance, rng.uniform(4, 18))
        assert wait_until(lambda: not run.stage_processes(), seconds=120), "an orphan stage goes on after its runner"
        now = run.finals()
        assert committed.items() <= now.items(), "committed work was redone"
        committed = now
    code, output = run.finish()
    assert code == 0, output
    assert {stage: digest for stage, (digest, _) in run.finals().items()} == {s: d for s, (d, _) in finished.finals().items()}
    attempts = _steps_done(run.folder / "out" / "stages" / "sft")
    assert len(attempts) > 1 and all(steps == list(range(steps[0], steps[-1] + 1)) for _, steps in attempts)
    assert not run.stage_processes()


def test_a_stage_can_be_skipped_with_another_runs_checkpoint(finished, make_run):
    run = make_run("skipping")
    run.stage("sft")["checkpoint"] = {"uri": str(finished.folder / "out" / "checkpoints" / "sft")}
    run.spec["stages"] = [stage for stage in run.spec["stages"] if stage["kind"] in ("sft", "rlvr")]
    code, output = run.finish()
    assert code == 0, output
    assert set(run.finals()) == {"rlvr"} and run.finals()["rlvr"][0] != finished.finals()["rlvr"][0]


def test_a_changed_hyperparameter_is_refused_and_with_redo_runs_from_that_stage_on(finished, make_run):
    run = make_run("changed")
    shutil.copytree(finished.folder / "out", run.folder / "out")
    run.stage("rlvr")["config"]["steps"] = 2
    before = run.finals()
    code, output = run.finish()
    assert code == 1 and "'rlvr'" in output and "--redo" in output
    assert run.finals() == before
    code, output = run.finish("--redo")
    assert code == 0, output
    done = json.loads((run.folder / "out" / "status.json").read_text())["status"]["stages"]
    attempts = {stage["name"]: stage["attempts"][-1]["number"] for stage in done}
    assert attempts == {"sft": 1, "discriminator": 1, "alignment": 1, "rlvr": 2, "evaluation": 2}
    assert [stage["checkpoint"]["step"] for stage in done if stage["name"] == "rlvr"] == [2]


@pytest.mark.parametrize(("stage", "stop_at"), [("sft", 7), ("discriminator", 3), ("alignment", 2), ("rlvr", 1)])
def test_a_stage_stopped_midway_goes_on_to_the_same_bits(finished, tmp_path, stage, stop_at):
    half = run_stage(job_of(finished, stage, tmp_path / "first"), stop_at)
    assert half.step == stop_at
    job = job_of(finished, stage, tmp_path / "second", attempt=2, resume_from=half)
    whole = run_stage(job)
    assert whole.digest == finished.finals()[stage][0]
    steps = [json.loads(line)["step"] for line in (Path(job.report_dir) / "metrics.jsonl").read_text().splitlines()]
    assert min(steps) >= stop_at and max(steps) == whole.step


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_one_flipped_bit_in_a_checkpoint_stops_the_next_stage_and_names_the_file(finished, make_run):
    run = make_run("flipped")
    copied = run.folder / "sft"
    (source,) = (finished.folder / "out" / "checkpoints" / "sft").glob("attempt-*/step-*")
    shutil.copytree(source, copied)
    _flip(copied / "policy" / "model.safetensors")
    run.stage("sft")["checkpoint"] = {"uri": str(copied)}
    run.spec["stages"] = [stage for stage in run.spec["stages"] if stage["kind"] in ("sft", "rlvr")]
    code, output = run.finish()
    flat = " ".join(output.split())
    assert code == 1 and "CheckpointCorrupt" in flat and "model.safetensors" in flat, output
    assert "rlvr" not in run.finals()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda run, finished: run.stage("sft")["data"][0].update(uri="nowhere.json"), "nowhere.json"),
        (lambda run, finished: run.stage("sft").update(resources={"gpusPerNode": 1}), "GPU"),
        (lambda run, finished: run.stage("sft")["config"].update(learningRat=1), "learningRat"),
        (lambda run, finished: run.stage("rlvr")["config"].update(algorithm={"name": "dapo"}), "overlongBufferTokens is 4096"),
        (lambda run, finished: run.spec.update(engine="verl"), "verl"),
    ],
    ids=["missing file", "a GPU where there is none", "unknown key", "a penalty for every response", "an engine nothing carries out"],
)
def test_a_bad_run_is_refused_before_anything_starts(finished, make_run, change, sentence):
    run = make_run("bad")
    change(run, finished)
    code, output = run.finish()
    assert code == 2 and sentence in output, output
    assert not (run.folder / "out" / "stages").exists()


def test_a_broken_image_is_named_by_file_and_row(make_run, digits, tmp_path):
    rows = json.loads((digits / "data" / "curated.json").read_text())[:20]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    rows[3]["images"] = [str(tmp_path / "broken.png")]
    for row in rows[:3] + rows[4:]:
        row["images"] = [str(digits / "data" / image) for image in row["images"]]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    run = make_run("broken")
    run.stage("sft")["data"] = [{"uri": str(tmp_path / "set.json")}]
    code, output = run.finish()
    flat = " ".join(output.split())
    assert code == 1 and "row 3, column 'images'" in flat and "broken.png" in flat, output


def test_a_discriminator_given_as_a_policy_is_refused(finished, make_run):
    (folder,) = (finished.folder / "out" / "checkpoints" / "discriminator").glob("attempt-*/step-*/discriminator")
    run = make_run("wrong-model")
    run.spec["model"]["uri"] = str(folder)
    code, output = run.finish()
    assert code == 1 and "expected a policy" in " ".join(output.split()), output
