"""`prism data filter` and `prism data pairs` with a real, tiny policy: interrupted and gone on with, they end with the same bytes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from texts import curated_response, draw_task

from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import DataSource
from prism_trainer.contract.optim import Optimizer, Sampling
from prism_trainer.curation.__main__ import main
from prism_trainer.curation.difficulty import filter_by_pass_rate, journal_file
from prism_trainer.curation.sampler import Drawing
from prism_trainer.curation.student_pairs import sample_pairs
from prism_trainer.data.dataset import open_verifiable
from prism_trainer.data.readers import pair
from prism_trainer.data.rows import Demonstration, VerifiablePrompt
from prism_trainer.data.sources import scan_file
from prism_trainer.data.writers import write_taught, write_verifiable
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, save_model
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.errors import DataError
from prism_trainer.stages.sft import accumulate, collate

SYSTEM = "Answer as caption, think, answer."
DRAWING = Drawing(4, 8, Sampling(max_response_tokens=48), 0, SYSTEM)
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def sets(base_dir, processor, make, tmp_path_factory):
    """A policy that has learnt the format by heart and answers by guessing; prompts with a teacher, and with answers."""
    import random

    folder = tmp_path_factory.mktemp("curation")
    rng = random.Random(1)
    taught = make.taught(6)
    policy = load_policy(base_dir, CPU)
    torch.manual_seed(0)
    config = SftConfig(batch_size=8, micro_batch_size=8)
    optimizer = StageOptimizer(policy, Optimizer(learning_rate=2e-3), 70)
    encoder = PromptEncoder(processor, SYSTEM)
    for _ in range(70):
        tasks = [draw_task(rng.randrange(3), rng.randrange(3), rng) for _ in range(8)]
        rows = [Demonstration(make.prompts(1)[0], curated_response(task).text) for task in tasks]
        accumulate(policy, collate(encoder, rows, config, CPU))
        optimizer.step()
    save_model(policy, load_processor(base_dir), folder / "policy")
    write_taught(folder / "taught.parquet", taught)
    write_verifiable(folder / "answers.parquet", [VerifiablePrompt(row.prompt, (str(n % 4),)) for n, row in enumerate(taught)])
    return folder


class CutError(Exception):
    """The process ends here."""


def _until(count):
    def told(done, total, found):
        if done >= count:
            raise CutError

    return told


def _never(done, total, found):
    pass


def _filter(sets, out, told=_never, band=(0.2, 0.8), drawing=DRAWING):
    return filter_by_pass_rate([DataSource(uri=str(sets / "answers.parquet"))], sets / "policy", out, drawing, band, "cpu", told)


def _right(out):
    """How often each row was answered rightly."""
    entries = [json.loads(line) for line in journal_file(out).read_text().splitlines()[1:]]
    return [right for entry in entries for right in entry["right"]]


def test_the_filter_keeps_what_lies_in_the_band_and_resumes_to_the_same_file(sets, tmp_path):
    kept = _filter(sets, tmp_path / "whole.parquet", band=(0.01, 0.99))
    rates = pq.read_table(tmp_path / "whole.parquet")["pass_rate"].to_pylist()
    sampled = [right / DRAWING.count for right in _right(tmp_path / "whole.parquet")]
    assert 0 < kept < len(sampled) == 6 and rates == [rate for rate in sampled if 0.01 <= rate <= 0.99]
    with pytest.raises(CutError):
        _filter(sets, tmp_path / "cut.parquet", _until(2))
    assert not (tmp_path / "cut.parquet").exists()
    with journal_file(tmp_path / "cut.parquet").open("ab") as file:
        file.write(b'{"right": [1')  # the process died while it wrote
    assert _filter(sets, tmp_path / "cut.parquet", band=(0.01, 0.99)) == kept
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert all(row.references for row in open_verifiable([DataSource(uri=str(tmp_path / "cut.parquet"))]))


def test_other_bounds_need_no_other_samples_and_other_sampling_does(sets, tmp_path):
    _filter(sets, tmp_path / "a.parquet", band=(0, 1))
    asked = []
    assert _filter(sets, tmp_path / "a.parquet", lambda *told: asked.append(told), band=(0, 1)) == 6 and not asked
    with pytest.raises(DataError, match=r"holds samples made with seed 0, now 1; restore that, give another --out, or remove the file"):
        _filter(sets, tmp_path / "a.parquet", drawing=replace(DRAWING, seed=1))


def test_a_band_that_keeps_nothing_is_a_sentence(sets, tmp_path):
    with pytest.raises(DataError, match=r"none of 6 rows has a pass rate from 0.99999 to 0.999999 \(mean"):
        _filter(sets, tmp_path / "none.parquet", band=(0.99999, 0.999999))


def _pairs(sets, out, told=_never, student="policy"):
    return sample_pairs(
        [DataSource(uri=str(sets / "taught.parquet"))], sets / student, out, replace(DRAWING, count=2, at_once=4), "cpu", told
    )


def test_pairs_are_read_as_warm_up_data_and_resume_to_the_same_file(sets, tmp_path):
    count = _pairs(sets, tmp_path / "whole/pairs.jsonl")
    rows = [pair(row) for row in scan_file(str(tmp_path / "whole/pairs.jsonl"))]
    assert 0 < count == len(rows) and all(row.student.caption and row.prompt.images for row in rows)
    with pytest.raises(CutError):
        _pairs(sets, tmp_path / "cut/pairs.jsonl", _until(2))
    with (tmp_path / "cut/pairs.jsonl.partial").open("ab") as file:
        file.write(b'{"id": "never to be seen')
    assert _pairs(sets, tmp_path / "cut/pairs.jsonl") == count
    assert (tmp_path / "cut/pairs.jsonl").read_bytes() == (tmp_path / "whole/pairs.jsonl").read_bytes()
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["images", "pairs.jsonl"]


def test_a_student_that_cannot_keep_the_format_makes_no_pairs_and_says_so(sets, base_dir, tmp_path):
    (sets / "untaught").symlink_to(base_dir)
    with pytest.raises(
        DataError,
        match=r"none of 12 responses is in the right format; if the model learnt .* --system-prompt, train the student longer",
    ):
        _pairs(sets, tmp_path / "pairs.jsonl", student="untaught")


def test_the_command_line_filters_and_refuses_to_overwrite(sets, tmp_path, capsys):
    arguments = ["filter", str(sets / "answers.parquet"), "--policy", str(sets / "policy"), "--out", str(tmp_path / "out.parquet")]
    options = ["--samples", "2", "--low", "0", "--high", "1", "--max-response-tokens", "48", "--system-prompt", SYSTEM, "--device", "cpu"]
    assert main([*arguments, *options]) == 0
    assert re.search(r"out.parquet: 6 rows", capsys.readouterr().out)
    assert json.loads(journal_file(tmp_path / "out.parquet").read_text().splitlines()[0])["samples"] == 2
    assert main([*arguments, *options]) == 1
    assert "exists; give another --out, or remove it" in capsys.readouterr().err


def test_the_command_line_makes_pairs_and_goes_on_after_a_kill(sets, tmp_path):
    """`prism data pairs` as a process, killed when some rows are done; the same command ends with the bytes of one that was not."""

    def command(out):
        options = ["--samples", "2", "--at-once", "2", "--max-response-tokens", "48", "--system-prompt", SYSTEM, "--device", "cpu"]
        given = ["pairs", str(sets / "taught.parquet"), "--student", str(sets / "policy"), "--out", str(out), *options]
        return [sys.executable, "-m", "prism_operator", "data", *given]

    whole, cut = tmp_path / "whole" / "pairs.jsonl", tmp_path / "cut" / "pairs.jsonl"
    told = subprocess.run(command(whole), capture_output=True, text=True, check=True).stdout
    rows = [pair(row) for row in scan_file(str(whole))]
    assert 0 < len(rows) <= 12 and f"{whole}: {len(rows)} pairs, two comparisons each" in told
    process = subprocess.Popen(command(cut), start_new_session=True)
    while not (journal_file(cut).exists() and len(journal_file(cut).read_bytes().splitlines()) > 2):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not cut.exists()
    assert subprocess.run(command(cut), capture_output=True).returncode == 0
    assert cut.read_bytes() == whole.read_bytes()
    refused = subprocess.run(command(cut), capture_output=True, text=True)
    assert refused.returncode == 1 and "exists; give another --out, or remove it" in refused.stderr
