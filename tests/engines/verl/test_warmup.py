"""The discriminator's warm-up on accelerate and DeepSpeed's ZeRO-2, for real, on the CPU with gloo."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from texts import curated_response, draw_task

from engine_stages import Stage, StoppedAfter
from prism_trainer.checkpoints import verify_checkpoint
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.data.writers import write_pairs, write_taught
from prism_trainer.engines.deepspeed.warmup import warm_up
from prism_trainer.engines.local.models import load_discriminator
from prism_trainer.engines.ranks.launch import plain_processes
from prism_trainer.errors import PrismError, Stopped
from prism_trainer.responses import parse_response
from prism_trainer.stages import discriminator as local


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (64, 32), random.Random(seed).randbytes(64 * 32 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


def _taught(number: int, *, long: bool = False) -> TaughtPrompt:
    """The student says something else of the same image, and `long` more than the discriminator reads. Never the same: rounding would
    decide such a pair."""
    rng = random.Random(number)
    left, right = rng.randrange(10), rng.randrange(10)
    teacher, student = draw_task(left, right, rng), draw_task((left + rng.randrange(1, 10)) % 10, rng.randrange(10), rng)
    prompt = Prompt(f"p:{number}", teacher.question, (_png(number),))
    text = curated_response(student).text
    said = text.replace("</think>", "so it is " * 200 + "</think>") if long else text
    return TaughtPrompt(prompt, parse_response(curated_response(teacher).text), (), parse_response(said))


@pytest.fixture
def make_stage(tmp_path, base_dir):
    def make(students: bool = True, long: tuple[int, ...] = (), **config) -> Stage:
        rows = [_taught(number, long=number in long) for number in range(12)]
        data = tmp_path / ("pairs.jsonl" if students else "taught.parquet")
        (write_pairs if students else write_taught)(data, rows)
        given = {"max_steps": 3, "batch_size": 8, "micro_batch_size": 4, "eval_every": 2, "held_out_fraction": 0.25, "head_std": 0.5}
        given |= {"optimizer": {"learningRate": 1e-3}}
        return Stage(tmp_path, base_dir, data, DiscriminatorConfig.model_validate({**given, **config}))

    return make


def weights_of(checkpoint: CheckpointRef) -> dict[str, torch.Tensor]:
    return load_file(Path(checkpoint.uri) / "discriminator" / "model.safetensors")


def assert_same_course(stage: Stage, one: StageJob, other: StageJob) -> None:
    for ours, theirs in zip(stage.lines(one), stage.lines(other), strict=True):
        assert theirs["metrics"] == pytest.approx(ours["metrics"], rel=1e-3, abs=1e-5), ours["step"]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_any_number_of_ranks_has_the_losses_and_weights_of_engine_local(make_stage, num_ranks):
    stage = make_stage()
    ours, theirs = stage.job(engine="local"), stage.job()
    expected = local.run(ours, stage.config, stage.reporter(ours))
    found = warm_up(theirs, stage.config, stage.reporter(theirs), plain_processes(num_ranks))
    assert_same_course(stage, ours, theirs)
    manifest = verify_checkpoint(found)
    assert manifest.final and manifest.architectures == {"discriminator": "Qwen3VLMoeDiscriminator"}
    reported = stage.lines(theirs)[-1]["metrics"]
    assert manifest.provenance.metrics == pytest.approx({name: reported[name] for name in manifest.provenance.metrics}, abs=1e-6)
    assert "held_out/acc" in manifest.provenance.metrics
    load_discriminator(Path(found.uri) / "discriminator", torch.device("cpu"))
    for name, tensor in weights_of(expected).items():
        torch.testing.assert_close(weights_of(found)[name], tensor, atol=3e-4, rtol=1e-2, msg=name)


def test_a_students_response_that_is_too_long_is_left_out_and_counted_by_both_engines(make_stage):
    stage = make_stage(long=(2, 7), max_length=256, max_steps=1)
    ours, theirs = stage.job(engine="local"), stage.job()
    local.run(ours, stage.config, stage.reporter(ours))
    warm_up(theirs, stage.config, stage.reporter(theirs), plain_processes(2))
    assert stage.lines(theirs)[0]["metrics"]["students/too_long"] == 2
    assert_same_course(stage, ours, theirs)


@pytest.mark.long
def test_a_stopped_warm_up_goes_on_at_the_next_step_to_the_weights_of_one_that_was_not(make_stage):
    stage = make_stage(max_steps=4, save_every=2)
    straight, first = stage.job(attempt=1), stage.job(attempt=2)
    expected = warm_up(straight, stage.config, stage.reporter(straight), plain_processes(2))
    with pytest.raises(Stopped) as stopped:
        warm_up(first, stage.config, StoppedAfter(stage.reporter(first), 1), plain_processes(2))
    checkpoint = stopped.value.checkpoint
    assert 1 <= checkpoint.step < 4
    assert not verify_checkpoint(checkpoint).final
    assert not (Path(first.output_uri) / "scratch").exists()

    second = stage.job(attempt=3, resume_from=checkpoint)
    found = warm_up(second, stage.config, stage.reporter(second), plain_processes(2))
    assert [line["step"] for line in stage.lines(second)] == list(range(checkpoint.step, 5))
    for line, again in zip(stage.lines(straight)[checkpoint.step + 1 :], stage.lines(second)[1:], strict=True):
        assert line["metrics"] == again["metrics"]
    assert all(torch.equal(tensor, weights_of(found)[name]) for name, tensor in weights_of(expected).items())

    alone = stage.job(attempt=4, resume_from=checkpoint)
    with pytest.raises(
        PrismError, match=r"was saved by 2 GPUs, and its optimizer's shards fit no other number; the stage has 1: give it 2"
    ):
        warm_up(alone, stage.config, stage.reporter(alone), plain_processes(1))


@pytest.mark.long
def test_without_students_of_their_own_rows_ask_the_policy_on_every_rank(make_stage):
    """The policy here has random weights and writes nothing of use, which both engines say in the same words."""
    stage = make_stage(students=False, student_sampling={"maxResponseTokens": 4}, max_steps=1)
    sentences = []
    for engine, run in (("local", local.run), ("verl", lambda *given: warm_up(*given, plain_processes(2)))):
        job = stage.job(engine=engine)
        with pytest.raises(PrismError, match="only 0 student responses in the right format") as failed:
            run(job, stage.config, stage.reporter(job))
        sentences.append(str(failed.value))
    assert sentences[1].startswith(sentences[0])


def test_a_step_that_cannot_be_divided_is_refused_before_anything_is_loaded(make_stage):
    stage = make_stage()
    job = stage.job()
    with pytest.raises(PrismError, match=r"a step has 4 rows \(config.batchSize\), the stage 3 GPUs; give a multiple of 3"):
        warm_up(job, stage.config, stage.reporter(job), plain_processes(3))
