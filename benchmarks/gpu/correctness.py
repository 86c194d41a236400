"""Engine verl on one GPU with a tiny model: every algorithm takes a few steps, stops, goes on, and leaves models that load.

    python benchmarks/gpu/correctness.py [STAGE ...] --run runs/digits --out FOLDER [--device cpu] [--steps 5] [--jobs 1]

`--run` holds what `prism run examples/digits/prismrun.yaml` has made: the policy of `sft`, the warmed-up discriminator and the jobs that
made them, whose system prompt is taken. Alignment, GRPO, DAPO and GSPO each run as a stage's own process; then each is started again from
its checkpoint in the middle, and so is the discriminator's warm-up on DeepSpeed. Teachers name the two digits in the other order than any
response does, so that a discriminator which learns tells them apart.

Prints a line a stage and writes FOLDER/correctness.json. Exits with 1 where a step is missing or lacks one of the metrics in `claims.py`
(those that are not finite are left out of the report), the discriminator's accuracy does not rise, a stage does not go on at the next step,
or a final policy or discriminator does not load. A tiny model's losses say nothing about those of a large one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from claims import accuracy_rises, export_loads, finite_metrics, steps_taken

from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.report import METRICS, RESULT
from prism_trainer.contract.schema import digest_of

ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"name": "grpo"},
    "dapo": {"name": "dapo", "overlong_buffer_tokens": 16, "oversampling": 2, "max_generation_batches": 4},
    "gspo": {"name": "gspo"},
}
STAGES = ["alignment", *ALGORITHMS, "discriminator"]
ALONE, BESIDE = ("-m", "prism_trainer"), (str(Path(__file__).parent / "beside.py"),)
MIDDLE = 3
"""Step of the checkpoint that the second start goes on from."""
CAPTION = ("<caption>\n- left digit ", "\n- right digit ", "\n</caption>")
"""Of a teacher, around its two digits."""


def main() -> int:
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    write_separable(options.data / "alignment.parquet", options.out / "separable.parquet")
    with ThreadPoolExecutor(options.jobs) as pool:
        results = dict(zip(options.stages, pool.map(lambda name: try_stage(name, options), options.stages), strict=True))
    (options.out / "correctness.json").write_text(json.dumps(results, indent=1))
    for name, result in results.items():
        print(f"{name:10} {'ok' if not result['problems'] else '; '.join(result['problems'])}")
    return int(any(result["problems"] for result in results.values()))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help=f"of {', '.join(STAGES)}; all when none is named")
    parser.add_argument("--run", type=Path, required=True, help="folder of a digits run with stages sft and discriminator")
    parser.add_argument("--data", type=Path, help="folder of the digits data; by default RUN/data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--limit", type=int, default=560, help="seconds that a process is given")
    parser.add_argument("--jobs", type=int, default=1, help="stages at once on the GPU; see beside.py")
    options = parser.parse_args()
    options.data = options.data or options.run / "data"
    options.stages = options.stages or STAGES
    return options


def try_stage(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """From the start to the end, and from the middle to the end."""
    kind = "rlvr" if name in ALGORITHMS else name
    whole = start(name, options, "whole", None)
    problems = [f"first start: {one}" for one in check(kind, whole, 1, options.steps)]
    problems += accuracy_rises(whole["metrics"]) if kind == "alignment" else []
    middle = find_step(Path(whole["output"]), MIDDLE)
    if middle is None:
        return {**whole, "problems": [*problems, f"no checkpoint of step {MIDDLE}"]}
    again = start(name, options, "again", middle)
    problems += [f"second start: {one}" for one in check(kind, again, MIDDLE + 1, options.steps)]
    return {**whole, "again": again["metrics"], "again_seconds": again["seconds"], "problems": problems}


def check(kind: str, started: dict[str, Any], first: int, last: int) -> list[str]:
    if started["exit_code"]:
        return [started["end"]]
    lines, final = started["metrics"], Path(started["output"]) / f"step-{last:06d}"
    return [*steps_taken(lines, first, last), *finite_metrics(kind, lines), *export_loads(kind, final)]


def start(name: str, options: argparse.Namespace, attempt: str, resume_from: CheckpointRef | None) -> dict[str, Any]:
    """One process of the stage, with its log beside its output."""
    folder = options.out / name / attempt
    job = make_job(name, options, folder, resume_from)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(job.model_dump_json(indent=1))
    environment = {"OMP_NUM_THREADS": "2", **os.environ, **({"PRISM_VERL_ON_CPU": "1"} if options.device == "cpu" else {})}
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        try:
            code = subprocess.run(
                [sys.executable, *(BESIDE if options.jobs > 1 else ALONE), str(folder / "job.json")],
                stdout=log, stderr=log, timeout=options.limit, env=environment, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -1
    lines = folder / "report" / METRICS
    result = folder / "report" / RESULT
    return {
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "end": json.loads(result.read_text()).get("message", "") if result.is_file() else f"no result, exit code {code}",
        "metrics": [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else [],
        "output": str(folder / "checkpoints"),
    }


def make_job(name: str, options: argparse.Namespace, folder: Path, resume_from: CheckpointRef | None) -> StageJob:
    config = make_config(name, options)
    inputs = {"policy": final_of(options.run, "sft")}
    if name == "alignment":
        inputs["discriminator"] = final_of(options.run, "discriminator")
    data = options.data / "rlvr.parquet" if name in ALGORITHMS else options.out / "separable.parquet"
    return StageJob(
        run="correctness", stage=name, attempt=1 if resume_from is None else 2, engine="verl", seed=0, config=config,
        system_prompt=system_prompt_of(options.run),
        config_digest=digest_of(config), inputs=inputs, data=(DataSource(uri=str(data)),),
        output_uri=str(folder / "checkpoints"), report_dir=str(folder / "report"), resume_from=resume_from, keep_intermediate=2,
    )  # fmt: skip


def make_config(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Sizes of the digits example. A high learning rate, so that five steps are seen."""
    if name == "discriminator":
        return {
            "kind": name, "device": options.device, "max_steps": options.steps, "save_every": MIDDLE, "eval_every": options.steps,
            "batch_size": 64, "micro_batch_size": 64, "student_sampling": {"max_response_tokens": 56}, "optimizer": {"learning_rate": 3e-4},
        }  # fmt: skip
    common = {
        "device": options.device, "steps": options.steps, "prompts_per_step": 8, "save_every": MIDDLE, "dump_every": 1,
        "rollout": {"group_size": 8, "max_response_tokens": 56}, "optimizer": {"learning_rate": 5e-5},
        "gpu": {"max_prompt_tokens": 512, "tokens_per_gpu": 8192, "memory_share": 0.1, "cuda_graphs": False},
    }  # fmt: skip
    if name == "alignment":
        return {"kind": "alignment", **common, "discriminator_optimizer": {"learning_rate": 3e-4}}
    return {"kind": "rlvr", **common, "algorithm": ALGORITHMS[name]}


def final_of(run: Path, stage: str) -> CheckpointRef:
    """The stage's final checkpoint in the run's folder."""
    found = [(manifest, folder) for folder in run.glob(f"checkpoints/{stage}/**/step-*") if (manifest := read_manifest(folder))]
    finals = [(manifest, folder) for manifest, folder in found if manifest.final]
    if not finals:
        sys.exit(f"{run} has no final checkpoint of stage {stage}; run `prism run examples/digits/prismrun.yaml` first")
    manifest, folder = finals[-1]
    return CheckpointRef(stage=stage, uri=str(folder), digest=manifest.digest, step=manifest.step)


def find_step(output: Path, step: int) -> CheckpointRef | None:
    folder = output / f"step-{step:06d}"
    manifest = read_manifest(folder)
    return manifest and CheckpointRef(stage=manifest.stage, uri=str(folder), digest=manifest.digest, step=step)


def system_prompt_of(run: Path) -> str:
    """What the policy was trained under; under another one it loses the format, and no response is valid."""
    jobs = sorted(run.glob("stages/sft/*/job.json"))
    if not jobs:
        sys.exit(f"{run} has no job of stage sft; run `prism run examples/digits/prismrun.yaml` first")
    return StageJob.model_validate_json(jobs[-1].read_text()).system_prompt


def write_separable(source: Path, target: Path) -> None:
    """The digits' alignment data with teachers that name the right digit before the left one, which no policy of the run does."""
    rows = pyarrow.parquet.read_table(source).to_pylist()
    for row in rows:
        for name in ("teacher_caption", "teacher_response"):
            row[name] = right_first(row[name])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), target)


def right_first(text: str) -> str:
    before, between, after = CAPTION
    left, rest = text.removeprefix(before).split(between, 1)
    right, rest = rest.split(after, 1)
    return f"<caption>\n- right digit {right}\n- left digit {left}{after}{rest}"


if __name__ == "__main__":
    sys.exit(main())
