"""Stage evaluation of engine verl: lmms-eval carries our tasks, vLLM replicas draw the answers, and a judge may follow.

What is asked, how it is marked, what is recorded and what the rows say is as in `stages.evaluation`. The judge comes after all answers
here, because one that the stage serves itself needs the policy's GPUs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.devices import require_heard
from prism_trainer.engines.lmms.judge_server import judge_dir, served
from prism_trainer.engines.lmms.progress import Progress
from prism_trainer.engines.local.session import Session
from prism_trainer.errors import PrismError, Stopped
from prism_trainer.evaluation.judge import Judge
from prism_trainer.evaluation.judging import judge_rest, pending
from prism_trainer.evaluation.record import SampleRecord
from prism_trainer.evaluation.suite import ProblemSet, open_suite
from prism_trainer.evaluation.summary import measure, metrics_of, write_results
from prism_trainer.reporting import Reporter

LIBRARIES = ("lmms_eval", "ray", "vllm")
JUDGE_LOG = "judge.log"


def run(job: StageJob, config: EvaluationConfig, reporter: Reporter) -> CheckpointRef:
    require_heard(config)
    require_libraries()
    from prism_trainer.engines.lmms.answering import answer_all  # imports them

    judge = prepare_judge(job, config, reporter)
    suite = open_suite(job, config, reporter.fetching)
    session = Session(job.model_copy(update={"data": tuple(source for one in suite for source in one.sources)}), reporter)
    resumed = Path(job.resume_from.uri) / "state" if job.resume_from else None
    record = SampleRecord.open(Path(job.report_dir), session.identity, resumed)
    progress = Progress(reporter, record, len(job.inputs) * len(config.seeds) * sum(len(one.ids) for one in suite))
    try:
        answer_all(session, config, suite, record, progress)
        if judge is not None:
            ask(judge, config, suite, record, tuple(job.inputs), progress)
    except Stopped as stopped:
        raise Stopped(_save(session, record, progress)) from stopped
    rows = measure(job, config, suite, record, list(job.inputs))
    found = {name: value for row in rows for name, value in metrics_of(row)}
    progress.tell(found)
    payload = {"results": lambda folder: write_results(folder, rows, record)}
    return session.commit(reporter.steps_done, payload, {}, final=True, metrics=found)


def require_libraries() -> None:
    """PrismError where this environment is that of another stage."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise PrismError(
            f"engine verl evaluates with lmms-eval, vLLM and Ray, and this environment has no {' and no '.join(missing)}; take the image "
            "prism-eval, or engine local"
        )


def prepare_judge(job: StageJob, config: EvaluationConfig, reporter: Reporter) -> AbstractContextManager[Judge] | None:
    """Not started yet; a key that is not set or a folder that holds no model is told before the first answer is drawn."""
    if config.judge is None:
        return None
    report_dir = Path(job.report_dir)
    verdicts = Path(config.judge.cache or report_dir.parent)
    if config.judge.uri is None:
        return Judge(config.judge, verdicts, lambda: reporter.stop_requested)
    folder, log = judge_dir(config.judge.uri), report_dir / JUDGE_LOG
    return served(config.judge, folder, config.gpu.memory_share, verdicts, log, lambda: reporter.stop_requested)


def ask(
    judge: AbstractContextManager[Judge],
    config: EvaluationConfig,
    suite: Sequence[ProblemSet],
    record: SampleRecord,
    stages: Sequence[str],
    progress: Progress,
) -> None:
    """Where the rules said no; nothing is started where nothing is left to ask."""
    if any(pending(record, suite, stages)):
        with progress.during("judging"), judge as asked:
            judge_rest(record, suite, stages, asked, config.batch_size, progress.go_on)


def _save(session: Session, record: SampleRecord, progress: Progress) -> CheckpointRef | None:
    """The answers so far as a checkpoint to go on from, for where this attempt's folder will not be there; none while there are none."""
    progress.tell()
    if not len(record):
        return None
    return session.commit(len(record), {"state": lambda folder: record.save(folder, with_head=True)}, {}, final=False)
