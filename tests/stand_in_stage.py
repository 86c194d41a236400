"""A stage that trains nothing, for tests of the local executor: it writes what the trainer writes, in a second instead of minutes.

`python stand_in_stage.py BEHAVIOUR JOB`: BEHAVIOUR is a JSON file, by stage and attempt ("sft/1", or "sft" for every attempt):

    steps: 4, seconds: 0.02      steps in all, and seconds for each; a checkpoint is committed after every step
    die_at: 2                    kill -9 itself after that step
    die_after_final: true        the same after the final checkpoint, before the result
    fail_at: 2, class: UserError report a failure after that step
    exit_at: 2, code: 1          exit after that step without a result
    hang_at: 2                   go on living after that step, and do nothing
    deaf: true                   ignore SIGTERM
    child: true                  leave a child process of its own behind
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef, FileEntry, Parent, Provenance
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import Progress, StageResult

ROLE = {"sft": "policy", "discriminator": "discriminator", "alignment": "policy", "rlvr": "policy", "evaluation": "results"}


def now() -> str:
    return datetime.now(UTC).isoformat()


def commit(job: StageJob, step: int, final: bool) -> CheckpointRef:
    folder = Path(job.output_uri) / f"step-{step:06d}{'-final' if final else ''}"
    role = ROLE[job.config.kind]
    (folder / role).mkdir(parents=True, exist_ok=True)
    payload = json.dumps([{"stage": "sft", "accuracy": 0.5}] if role == "results" else {"step": step})
    (folder / role / "results.json").write_text(payload)
    manifest = CheckpointManifest(
        run=job.run,
        stage=job.stage,
        kind=job.config.kind,
        step=step,
        final=final,
        config_digest=job.config_digest,
        seed=job.seed,
        parents=tuple(Parent(stage=ref.stage, digest=ref.digest or "none") for ref in job.inputs.values()),
        files=(FileEntry(path=f"{role}/results.json", size=len(payload), sha256=hashlib.sha256(payload.encode()).hexdigest()),),
        provenance=Provenance(attempt=job.attempt, created_at=now(), seconds=0.1, metrics={"loss": 1.0 / (step + 1)}),
    )
    draft = folder / ".manifest.draft"
    draft.write_text(json.dumps(manifest.to_file()))
    draft.replace(folder / "manifest.json")
    return CheckpointRef(stage=job.stage, uri=str(folder), digest=manifest.digest, step=step)


def write(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


class Stage:
    def __init__(self, job: StageJob, behaviour: dict):
        self.job, self.behaviour, self.stopping = job, behaviour, False
        self.steps, self.report = behaviour.get("steps", 4), Path(job.report_dir)
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: object) -> None:
        self.stopping = not self.behaviour.get("deaf", False)

    def result(self, outcome: str, code: int, **fields: object) -> None:
        found = StageResult(stage=self.job.stage, attempt=self.job.attempt, outcome=outcome, **fields)
        write(self.report / "result.json", found.to_message())
        sys.exit(code)

    def heartbeat(self, step: int) -> None:
        beat = Progress(
            stage=self.job.stage, attempt=self.job.attempt, step=step, total_steps=self.steps, advanced_at=now(), updated_at=now()
        )
        write(self.report / "progress.json", beat.model_dump_json())

    def after(self, step: int) -> None:
        does = self.behaviour
        if does.get("die_at") == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if does.get("exit_at") == step:
            print("Traceback (most recent call last):\nRuntimeError: the stand-in was told to exit", flush=True)
            os._exit(does.get("code", 1))
        if does.get("fail_at") == step:
            self.result("Failed", 1, failure_class=does.get("class", "UserError"), message="data row 7 has no image")
        while does.get("hang_at") == step and not self.stopping:
            time.sleep(0.02)

    def run(self) -> None:
        done = self.job.resume_from.step if self.job.resume_from else 0
        print(f"stage {self.job.stage} attempt {self.job.attempt} from step {done}", flush=True)
        if self.behaviour.get("child"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(self.report)])
        for step in range(done + 1, self.steps):
            self.step(step)
        reference = commit(self.job, self.steps, final=True)
        if self.behaviour.get("die_after_final"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.result("Succeeded", 0, checkpoint=reference, metrics={"loss": 0.1})

    def step(self, step: int) -> None:
        with (self.report / "steps.txt").open("a") as file:
            file.write(f"{step}\n")
        time.sleep(self.behaviour.get("seconds", 0.02))
        self.heartbeat(step)
        reference = commit(self.job, step, final=False)
        self.after(step)
        if os.getppid() != int(os.environ["PRISM_PARENT_PID"]):
            self.stopping = True
        if self.stopping:
            self.result("Stopped", 75, checkpoint=reference, message="saved and stopped")


def main() -> None:
    job = StageJob.model_validate_json(Path(sys.argv[2]).read_text())
    behaviours = json.loads(Path(sys.argv[1]).read_text())
    behaviour = {**behaviours.get("*", {}), **behaviours.get(job.stage, {}), **behaviours.get(f"{job.stage}/{job.attempt}", {})}
    Stage(job, behaviour).run()


if __name__ == "__main__":
    main()
