"""What a running stage leaves in its report folder, also on a disk that takes nothing."""

import json
import re
import signal
import time

import pytest

from prism_trainer import __main__ as trainer
from prism_trainer import reporting
from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig, EvaluationConfig, RlvrConfig, SftConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import FailureClass, StageResult
from prism_trainer.errors import DataError, StorageError
from prism_trainer.reporting import Reporter


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def report(tmp_path):
    return tmp_path / "report"


@pytest.fixture
def reporter(report):
    return Reporter(report, "sft", 1)


def _progress(report):
    return json.loads((report / "progress.json").read_text())


def _fill(path):
    """From now on the disk is full for this one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/full")


def test_only_the_latest_steps_metrics_are_shown(report, reporter):
    with reporter:
        reporter.begin(0, 3)
        reporter.step(1, {"loss": 2.0, "critic/d_acc": 0.5, "broken": float("nan")})
        reporter.step(2, {"loss": 1.0})
        assert reporter.latest == {"loss": 1.0}
    assert (_progress(report)["metrics"], _progress(report)["step"]) == ({"loss": 1.0}, 2)
    lines = [json.loads(line)["metrics"] for line in (report / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"loss": 2.0, "critic/d_acc": 0.5}, {"loss": 1.0}]


def test_metrics_that_the_stage_goes_on_filling_stay_as_they_were_reported(reporter):
    metrics = {"accuracy/sft": 0.5}
    reporter.step(1, metrics)
    metrics["accuracy/rlvr"] = 0.6
    assert reporter.latest == {"accuracy/sft": 0.5}


def test_a_phase_in_between_gives_way_to_the_one_before(report, reporter):
    reporter.begin(0, 3, phase="evaluating")
    with reporter.during("saving"), reporter:
        pass
    assert _progress(report)["phase"] == "saving"
    reporter._write_progress()
    assert _progress(report)["phase"] == "evaluating"


def test_the_heartbeat_outlives_a_full_disk(report, reporter, monkeypatch):
    monkeypatch.setattr(reporting, "HEARTBEAT_SECONDS", 0.005)
    _fill(report / "progress.partial")
    with reporter:
        time.sleep(0.05)
        assert not (report / "progress.json").exists()
        (report / "progress.partial").unlink()
        end = time.monotonic() + 10
        while not (report / "progress.json").exists() and time.monotonic() < end:
            time.sleep(0.005)
        assert _progress(report)["stage"] == "sft"


def test_a_step_beyond_the_total_does_not_end_the_heartbeat(report, reporter):
    with reporter:
        reporter.begin(0, 1)
        reporter.step(2, {})
    assert _progress(report)["etaSeconds"] == 0


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("metrics.jsonl", lambda reporter: reporter.step(1, {"loss": 1.0})),
        ("samples/step-000001.jsonl", lambda reporter: reporter.dump(1, [{"response": "x"}])),
        ("result.partial", lambda reporter: reporter.result(StageResult(stage="sft", attempt=1, outcome="Succeeded"))),
    ],
    ids=["metrics", "samples", "result"],
)
def test_a_full_disk_is_a_sentence(report, reporter, name, write):
    _fill(report / name)
    with pytest.raises(StorageError, match=r"no space left for report '.*' \(\d+ MiB free\); free some and run again"):
        write(reporter)


def test_a_report_that_cannot_be_written_for_another_reason_is_a_sentence_too(report, reporter):
    (report / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics.jsonl' cannot be written \(.*Is a directory.*; correct that and run again"):
        reporter.step(1, {})


def _job_file(tmp_path, report, engine="local", config=None):
    job = StageJob(
        run="r", stage="sft", attempt=1, engine=engine, seed=0, config=config or SftConfig(), config_digest="c", output_uri="o",
        report_dir=str(report),
    )  # fmt: skip
    (tmp_path / "job.json").write_text(job.model_dump_json())
    return str(tmp_path / "job.json")


@pytest.fixture
def ends_with(monkeypatch):
    """A stage whose library preparation, the first thing it does, raises this."""

    def fail(error):
        def prepare(job):
            raise error

        monkeypatch.setattr(trainer, "_prepare_libraries", prepare)

    return fail


def test_a_result_that_cannot_be_written_leaves_the_exit_code_of_its_class(tmp_path, report, ends_with, capsys):
    ends_with(MemoryError())
    _fill(report / "result.partial")
    assert trainer.main([_job_file(tmp_path, report)]) == 71
    assert "no space left for report" in capsys.readouterr().err


def test_a_report_folder_that_cannot_be_made_is_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert trainer.main([_job_file(tmp_path, tmp_path / "file" / "report")]) == 1
    assert "cannot be written" in capsys.readouterr().err


OOM = FailureClass.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), OOM),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"), OOM),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000 bytes."), OOM),
        (RuntimeError("CUDA error: out of memory"), OOM),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), OOM),
        (OSError(12, "Cannot allocate memory"), OOM),
        (RuntimeError("shapes cannot be multiplied"), FailureClass.USER_ERROR),
        (DataError("row 3 talks about: out of memory"), FailureClass.USER_ERROR),
    ],
)
def test_every_way_to_run_out_of_memory_is_told_apart_from_a_bug(tmp_path, report, ends_with, error, expected):
    ends_with(error)
    trainer.main([_job_file(tmp_path, report)])
    assert json.loads((report / "result.json").read_text())["failureClass"] == expected


@pytest.mark.parametrize(
    ("engine", "config", "names"),
    [
        *(("local", config(), ["microBatchSize"]) for config in (SftConfig, DiscriminatorConfig)),
        *(("local", config(), ["microBatchSize", "promptsPerStep"]) for config in (AlignmentConfig, RlvrConfig)),
        ("local", EvaluationConfig(), ["batchSize"]),
        *(("verl", config(), ["microBatchSize", "gpu.offload"]) for config in (SftConfig, DiscriminatorConfig)),
        ("verl", AlignmentConfig(), ["gpu.tokensPerGpu", "microBatchSize", "gpu.memoryShare", "gpu.offload"]),
        ("verl", RlvrConfig(), ["gpu.tokensPerGpu", "gpu.memoryShare", "gpu.offload"]),
        ("verl", EvaluationConfig(), ["batchSize", "gpu.memoryShare"]),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_out_of_memory_names_the_fields_that_its_stage_has_and_its_engine_reads(tmp_path, report, ends_with, engine, config, names):
    ends_with(MemoryError())
    trainer.main([_job_file(tmp_path, report, engine, config)])
    message = json.loads((report / "result.json").read_text())["message"]
    assert re.findall(r"config\.([\w.]*\w)", message) == names
    for name in names:
        section, _, field = name.rpartition(".")
        given = config.to_dict()
        assert field in (given[section] if section else given)
