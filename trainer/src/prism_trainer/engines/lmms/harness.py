"""lmms-eval's loop around our tasks: it makes the requests, asks the model, has each document marked and adds up.

Called in this process and not by its command, which logs an error and exits with 0; here whatever is raised ends the stage. A loop that
ends without a result for every document is an error as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import evaluate

from prism_trainer.engines.lmms.task import ACCURACY, Document, ProblemTask
from prism_trainer.errors import PrismError

FILTER = "none"


class RecordingModel(lmms):  # type: ignore[misc]
    """Hands the documents of all requests to `draw` and gives empty texts back.

    lmms-eval keeps every text until the end, which would be gigabytes, and looks at none before the last is drawn; the record has each
    as soon as it is there.
    """

    is_simple = False

    def __init__(self, tasks: Mapping[str, ProblemTask], draw: Callable[[Sequence[Document]], None]) -> None:
        super().__init__()
        self._tasks, self._draw = tasks, draw

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        self._draw([self._document(request) for request in requests])
        return [GenerationResult("")] * len(requests)

    def loglikelihood(self, requests: Any) -> Any:
        raise NotImplementedError("no task of ours asks for it")

    def generate_until_multi_round(self, requests: Any) -> Any:
        raise NotImplementedError("no task of ours asks for it")

    def _document(self, request: Instance) -> Document:
        task = self._tasks[request.task_name]
        return task.document(task.dataset[request.metadata["split"]][request.doc_id])


def carry_out(tasks: Mapping[str, ProblemTask], draw: Callable[[Sequence[Document]], None]) -> dict[str, float]:
    """Accuracy by rules of each task over all its documents, as lmms-eval found it; PrismError where it found none."""
    found = evaluate(
        RecordingModel(tasks, draw),
        dict(tasks),
        bootstrap_iters=0,
        log_samples=False,
        distributed_executor_backend="torchrun",  # for one process means: no Accelerator, which would take a GPU
        process_docs_parallel=1,
    )
    return {name: _accuracy(name, task, found) for name, task in tasks.items()}


def _accuracy(name: str, task: ProblemTask, found: Mapping[str, Any] | None) -> float:
    expected = len(task.eval_docs)
    counted = ((found or {}).get("n-samples") or {}).get(name, {}).get("effective", 0)
    value = ((found or {}).get("results") or {}).get(name, {}).get(f"{ACCURACY},{FILTER}")
    if counted != expected or not isinstance(value, float | int):
        raise PrismError(
            f"lmms-eval ended without results of task '{name}' ({counted} of {expected} documents, {ACCURACY} {value}); the attempt's log "
            "says more; what was answered is kept, run again"
        )
    return float(value)
