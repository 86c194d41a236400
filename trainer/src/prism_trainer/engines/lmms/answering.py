"""Every checkpoint after the other through lmms-eval, all asked the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.results import EvaluationSample
from prism_trainer.engines.lmms.cluster import joined
from prism_trainer.engines.lmms.drawing import Drawing
from prism_trainer.engines.lmms.harness import carry_out
from prism_trainer.engines.lmms.progress import Progress
from prism_trainer.engines.lmms.task import Document
from prism_trainer.engines.lmms.task_folder import load_tasks, task_name, write_tasks
from prism_trainer.engines.local.session import Session
from prism_trainer.errors import PrismError
from prism_trainer.evaluation.record import SampleRecord
from prism_trainer.evaluation.suite import ProblemSet

TASKS = "tasks"
_TOLERANCE = 1e-9


def answer_all(session: Session, config: EvaluationConfig, suite: Sequence[ProblemSet], record: SampleRecord, progress: Progress) -> None:
    """Until the record has every answer. The folder of tasks stays beside the report, for lmms-eval's own command."""
    folder = Path(session.job.report_dir) / TASKS
    write_tasks(folder, session.job, config, suite)
    with joined() as cluster:
        for stage in session.job.inputs:
            drawing = Drawing(session.job, config, stage, session.input_dir(stage, "policy"), record, cluster, progress)
            _answer(drawing, folder, suite)


def _answer(drawing: Drawing, folder: Path, suite: Sequence[ProblemSet]) -> None:
    stage, record = drawing.stage, drawing.record
    by_name = {task_name(one, drawing.config): one for one in suite}

    def marked(document: Document) -> EvaluationSample:
        return record[stage, document.benchmark, document.prompt_id, document.seed]

    tasks = load_tasks(folder, list(by_name))
    for name, task in tasks.items():
        task.carry(by_name[name], marked)
    found = carry_out(tasks, lambda documents: drawing.draw(documents, {one.name: one for one in suite}))
    for name, accuracy in found.items():
        _require_same(name, accuracy, record.of(stage, by_name[name].name))


def _require_same(name: str, accuracy: float, samples: Sequence[EvaluationSample]) -> None:
    """What lmms-eval added up is what the record says: neither left a document out."""
    ours = sum(sample.correct and sample.judge is None for sample in samples) / len(samples)
    if abs(accuracy - ours) > _TOLERANCE:
        raise PrismError(
            f"task '{name}': lmms-eval found an accuracy of {accuracy:.6f}, the record has {ours:.6f}; this is a defect, report it"
        )
