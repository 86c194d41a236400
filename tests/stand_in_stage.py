"""A stage that trains nothing, for tests of the local executor: it writes what the trainer writes, in a second instead of minutes.

`python stand_in_stage.py BEHAVIOUR JOB`: BEHAVIOUR is a JSON file, by stage and attempt ("sft/1", or "sft" for every attempt):

    steps: 4, seconds: 0.02      steps in all, and seconds for each; a checkpoint is committed after every step
    die_at: 2                    kill -9 itself after that step
    die_after_final: true        the same after the final checkpoint, before the result
    fail_at: 2, class: UserError report a failure after that step
    exit_at: 2, code: 1          exit after that step without a result
    hang_at: 2                   go on living after that step, and do nothing
    deaf: true                   ignore SIGTERM
    accuracy: 0.5                what an evaluation finds
    child: true                  leave a child process of its own behind

Only the standard library, so that it starts in 30 ms; a manifest of the contract comes as a template in BEHAVIOUR ("manifest").
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

ROLE = {"sft": "policy", "discriminator": "discriminator", "alignment": "policy", "rlvr": "policy", "evaluation": "results"}


def now() -> str:
    return datetime.now(UTC).isoformat()


def commit(job: dict, template: dict, step: int, final: bool, accuracy: float) -> dict:
    folder = Path(job["outputUri"]) / f"step-{step:06d}{'-final' if final else ''}"
    role = ROLE[job["config"]["kind"]]
    (folder / role).mkdir(parents=True, exist_ok=True)
    payload = json.dumps(measure(job["inputs"], accuracy) if role == "results" else {"step": step})
    (folder / role / "results.json").write_text(payload)
    identity = {
        **{key: value for key, value in template.items() if key != "provenance"},
        **{"run": job["run"], "stage": job["stage"], "kind": job["config"]["kind"], "step": step, "final": final},
        **{"configDigest": job["configDigest"], "seed": job["seed"]},
        "parents": [{"stage": ref["stage"], "digest": ref.get("digest", "none")} for ref in job["inputs"].values()],
        "files": [{"path": f"{role}/results.json", "size": len(payload), "sha256": sha256(payload)}],
    }
    digest = "sha256:" + sha256(json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    provenance = {**template["provenance"], "attempt": job["attempt"], "createdAt": now()}
    write(folder / "manifest.json", json.dumps({**identity, "provenance": provenance, "digest": digest}))
    return {"stage": job["stage"], "uri": str(folder), "digest": digest, "step": step}


def measure(inputs: dict, accuracy: float) -> list[dict]:
    return [{"stage": stage, "steps": ref["step"], "accuracy": accuracy, "manifest": ref["digest"]} for stage, ref in inputs.items()][:1]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


class Stage:
    def __init__(self, job: dict, behaviour: dict, template: dict):
        self.job, self.behaviour, self.template, self.stopping = job, behaviour, template, False
        self.steps, self.report, self.accuracy = behaviour.get("steps", 4), Path(job["reportDir"]), behaviour.get("accuracy", 0.5)
        self.name = {"stage": job["stage"], "attempt": job["attempt"]}
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: object) -> None:
        self.stopping = not self.behaviour.get("deaf", False)

    def result(self, outcome: str, code: int, **fields: object) -> None:
        write(self.report / "result.json", json.dumps({**self.name, "outcome": outcome, **fields}))
        sys.exit(code)

    def heartbeat(self, step: int) -> None:
        beat = {**self.name, "step": step, "totalSteps": self.steps, "advancedAt": now(), "updatedAt": now()}
        write(self.report / "progress.json", json.dumps(beat))

    def after(self, step: int) -> None:
        does = self.behaviour
        if does.get("die_at") == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if does.get("exit_at") == step:
            print("Traceback (most recent call last):\nRuntimeError: the stand-in was told to exit", flush=True)
            os._exit(does.get("code", 1))
        if does.get("fail_at") == step:
            self.result("Failed", 1, failureClass=does.get("class", "UserError"), message="data row 7 has no image")
        while does.get("hang_at") == step and not self.stopping:
            time.sleep(0.02)

    def run(self) -> None:
        done = self.job.get("resumeFrom", {}).get("step", 0)
        print(f"stage {self.job['stage']} attempt {self.job['attempt']} from step {done}", flush=True)
        if self.behaviour.get("child"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(self.report)])
        for step in range(done + 1, self.steps):
            self.step(step)
        reference = commit(self.job, self.template, self.steps, True, self.accuracy)
        if self.behaviour.get("die_after_final"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.result("Succeeded", 0, checkpoint=reference, metrics={"loss": 0.1})

    def step(self, step: int) -> None:
        with (self.report / "steps.txt").open("a") as file:
            file.write(f"{step}\n")
        time.sleep(self.behaviour.get("seconds", 0.02))
        self.heartbeat(step)
        reference = commit(self.job, self.template, step, False, self.accuracy)
        self.after(step)
        if os.getppid() != int(os.environ["PRISM_PARENT_PID"]):
            self.stopping = True
        if self.stopping:
            self.result("Stopped", 75, checkpoint=reference, message="saved and stopped")


def main() -> None:
    job = json.loads(Path(sys.argv[2]).read_text())
    behaviours = json.loads(Path(sys.argv[1]).read_text())
    name = job["stage"]
    behaviour = {**behaviours.get("*", {}), **behaviours.get(name, {}), **behaviours.get(f"{name}/{job['attempt']}", {})}
    Stage(job, behaviour, behaviours["manifest"]).run()


if __name__ == "__main__":
    main()
