"""The container's straight line, from the job to the result."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.pod import PodJob
from prism_trainer.contract.report import RESULT, FailureClass, Restart, StageResult
from prism_trainer.errors import PrismError, Stopped
from prism_trainer.pod.board import Board
from prism_trainer.pod.copies import Copies
from prism_trainer.pod.gang import wait_for_gang
from prism_trainer.pod.inputs import bring_inputs
from prism_trainer.pod.keeper import Keeper
from prism_trainer.pod.last_words import logging_to
from prism_trainer.pod.mirror import Mirror
from prism_trainer.pod.places import Places
from prism_trainer.pod.predecessor import wait_for_predecessor, with_earlier_outputs
from prism_trainer.pod.preflight import check_machines
from prism_trainer.pod.progress_server import serving
from prism_trainer.pod.resume import find_resume_point
from prism_trainer.pod.retention import needless, remove_all
from prism_trainer.pod.stop import Stop
from prism_trainer.pod.survey import Committed, survey
from prism_trainer.pod.verdict import Verdict, judge
from prism_trainer.pod.watch import LOG, run_trainer
from prism_trainer.reporting import utc_now
from prism_trainer.stores import FolderStore, Store, is_object

LONGEST_PAUSE_SECONDS = 60.0

log = logging.getLogger(__name__)


class Supervisor:
    """One container's work."""

    def __init__(self, pod: PodJob, places: Places, stop: Stop) -> None:
        self._pod, self._places, self._stop = pod, places, stop
        self._started = time.monotonic()
        self._board = Board(pod.job.stage, pod.job.attempt)
        self._copies = Copies(places.copies_dir(pod) / "s3", pod.endpoint, self._copied)
        self._mirror = Mirror(pod.job, places.work_dir / "outbox" / pod.job.stage, self._copies, self._board)
        self._restarts: list[Restart] = []
        self._resume_from: str | None = None
        self._checkpoint: CheckpointRef | None = None
        self._metrics: dict[str, float] = {}

    def run(self) -> StageResult:
        """Every foreseen end is a result."""
        port = self._places.progress_port
        with serving(self._board, self._pod.job.run, port), logging_to(Path(self._copies.path(self._pod.job.report_dir)) / LOG):
            try:
                result = self._straight_line()
            except Stopped as stopped:
                result = self._result("Stopped", FailureClass.PREEMPTED, str(stopped))
            except PrismError as error:
                result = self._result("Failed", error.failure_class, str(error))
            self._report(result)
            return result

    def failed(self, sentence: str) -> StageResult:
        """For an end that nobody foresaw."""
        return self._result("Failed", FailureClass.USER_ERROR, sentence)

    def _straight_line(self) -> StageResult:
        if self._pod.after is not None:
            wait_for_predecessor(self._pod.after, self._places, self._stop, self._board)
        job = with_earlier_outputs(self._pod.job, self._places)
        self._board.phase("looking for checkpoints")
        final = self._final_there_already(job)
        if final is not None:
            return self._succeeded(job, final, f"was complete already: attempt {final.attempt} committed its final checkpoint")
        if job.engine == "verl" or self._pod.num_nodes > 1:  # engine local computes in this container alone
            gpus = job.gpus_per_node if job.engine == "verl" else 0
            wait_for_gang(self._pod.num_nodes, gpus, self._pod.gang_seconds, self._places, self._stop, self._board)
        self._board.phase("copying inputs")
        job = bring_inputs(job, self._pod, self._copies, self._places, self._stop)
        if job.engine == "verl":
            check_machines(job, self._copies.local_job(job), self._pod, self._places, self._stop, self._board)
        output = Path(self._copies.path(job.output_uri))
        with Keeper(job, output, self._store, self._mirror, self._places) as keeper:
            verdict = self._train(job)
            self._board.phase("uploading" if is_object(job.output_uri) else "finishing")
        return self._ended(job, verdict, keeper.failure)

    def _ended(self, job: StageJob, verdict: Verdict, uncopied: PrismError | None) -> StageResult:
        """A checkpoint that is nowhere but in this pod is none."""
        if uncopied is not None:
            self._checkpoint = None
        final = self._committed_final(job)
        if final is not None and uncopied is not None:
            raise uncopied
        if final is not None:
            return self._succeeded(job, final, verdict.message if verdict.failure_class is None else "")
        outcome = "Stopped" if verdict.failure_class is FailureClass.PREEMPTED else "Failed"
        more = f" (and its last checkpoint could not be copied: {uncopied})" if uncopied else ""
        return self._result(outcome, verdict.failure_class, verdict.message + more)

    def _train(self, job: StageJob) -> Verdict:
        """The trainer, and again the trainer while it fails and the budget of its class lasts."""
        while True:
            self._board.phase("looking for checkpoints")
            resume_from = find_resume_point(job, self._store, self._copies)
            self._resume_from = self._copies.uri(resume_from.uri) if resume_from else None
            log.info("stage '%s' attempt %d begins at %s", job.stage, job.attempt, self._resume_from or "its inputs")
            verdict = self._run_once(job, resume_from)
            if not self._may_restart(verdict):
                return verdict
            assert verdict.failure_class is not None
            log.warning("%s: %s. The trainer is started again.", verdict.failure_class, verdict.message.rstrip("."))
            self._restarts.append(
                Restart(failure_class=verdict.failure_class, message=self._copies.in_words(verdict.message)[:500], at=utc_now())
            )
            self._board.phase("restarting")
            self._stop.pause(min(LONGEST_PAUSE_SECONDS, self._places.restart_seconds * 2 ** (len(self._restarts) - 1)))

    def _run_once(self, job: StageJob, resume_from: CheckpointRef | None) -> Verdict:
        local = self._copies.local_job(job).model_copy(update={"resume_from": resume_from})
        self._board.follow(Path(local.report_dir), self._resume_from)
        end = run_trainer(local, self._pod, self._places, self._stop)
        self._metrics = end.result.metrics if end.result else {}
        verdict = judge(end)
        final = self._committed_final(job)
        own = survey(FolderStore(), local).intermediate
        self._checkpoint = final.ref if final else own[-1].ref if own else resume_from
        if final is not None:
            if verdict.failure_class is not None:
                FolderStore().verify(final.ref)
            return Verdict(None, "")
        if verdict.failure_class is None:
            sentence = "the trainer reported success, but its final checkpoint has no sound manifest; its folder was changed or deleted"
            return Verdict(FailureClass.CHECKPOINT_CORRUPT, sentence)
        return verdict

    def _may_restart(self, verdict: Verdict) -> bool:
        if verdict.failure_class is None or self._stop.requested:
            return False
        spent = sum(restart.failure_class is verdict.failure_class for restart in self._restarts)
        return spent < self._pod.restarts.get(verdict.failure_class, 0)

    def _final_there_already(self, job: StageJob) -> Committed | None:
        """Verified, so that a lost status or a lost last word never costs training."""
        finals = survey(self._store, job).finals
        if finals:
            self._store.verify(finals[-1].ref)
        return finals[-1] if finals else None

    def _committed_final(self, job: StageJob) -> Committed | None:
        """By the trainer, here."""
        finals = survey(FolderStore(), self._copies.local_job(job)).finals
        return finals[-1] if finals else None

    def _succeeded(self, job: StageJob, final: Committed, message: str) -> StageResult:
        self._checkpoint = final.ref
        self._metrics = self._metrics or final.manifest.provenance.metrics
        with contextlib.suppress(PrismError):
            remove_all(self._store, needless(survey(self._store, job), job.attempt, self._pod.keep_intermediate_when_done))
            if is_object(job.output_uri):
                local = survey(FolderStore(), self._copies.local_job(job))
                remove_all(FolderStore(), needless(local, job.attempt, 0))
        made = final.manifest
        data = {self._copies.uri(path): digest for path, digest in made.data.items()}
        return self._result("Succeeded", None, message, versions=made.provenance.versions, data=data)

    @property
    def _store(self) -> Store:
        return self._copies.store if is_object(self._pod.job.output_uri) else FolderStore()

    def _report(self, result: StageResult) -> None:
        """Into the attempt's report folder, for people; the operator reads the termination message."""
        folder = Path(self._copies.path(self._pod.job.report_dir))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RESULT).write_text(result.to_message())
            self._mirror.copy_reports()
        except (OSError, PrismError) as error:
            log.warning("the reports in '%s' are incomplete: %s", self._pod.job.report_dir, error)

    def _copied(self, num_bytes: int) -> None:
        """Called in the middle of every copy: a sign of work, and the place to leave when asked to stop."""
        self._board.advance()
        self._stop.check()

    def _result(self, outcome: str, failure_class: FailureClass | None, message: str, **fields: Any) -> StageResult:
        return StageResult(
            stage=self._pod.job.stage,
            attempt=self._pod.job.attempt,
            outcome=outcome,
            failure_class=failure_class,
            message=self._copies.in_words(message),
            checkpoint=self._copies.outside(self._checkpoint),
            seconds=round(time.monotonic() - self._started, 3),
            metrics=self._metrics,
            resume_from=self._resume_from,
            restarts=tuple(self._restarts),
            **fields,
        )
