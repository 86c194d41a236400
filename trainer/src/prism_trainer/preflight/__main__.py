"""`python -m prism_trainer.preflight REQUEST.json`: look at every node of a Ray cluster, write the report, say what is in the way.

Every line of output is a sentence; the last one is a `Finding` as JSON where something is in the way. Exit code 1 then, 0 otherwise.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from prism_trainer.contract.preflight import AllReduceFacts, Finding, NodeFacts, PreflightReport, PreflightRequest
from prism_trainer.contract.report import FailureClass
from prism_trainer.job_file import read_job
from prism_trainer.preflight.judgement import failures, warnings
from prism_trainer.preflight.through_ray import Node, alive_nodes, look_at_each, pass_files_around, sum_over
from prism_trainer.reporting import utc_now

GIB = 2**30


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m prism_trainer.preflight REQUEST.json", file=sys.stderr)
        return 2
    try:
        request = read_job(Path(arguments[0]), PreflightRequest)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    joined: dict[str, Any] = {"num_gpus": request.gpus_per_node} if request.ray_address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address=request.ray_address, log_to_driver=False, logging_level="ERROR", **joined)
    report = look_around(request)
    _write(report, Path(request.report_file))
    for line in in_words(report):
        print(line, flush=True)
    if not report.failures:
        return 0
    print(_together(report.failures).model_dump_json())
    return 1


def look_around(request: PreflightRequest) -> PreflightReport:
    """Each look tells what it is about to do, so that the last line names what never ended."""
    started = time.monotonic()
    nodes = alive_nodes()
    _tell(f"looking at {len(nodes)} nodes: GPUs, memory, disks, libraries")
    facts = look_at_each(nodes, request)
    folder = Path(request.storage_dir) / ".preflight"
    _tell(f"writing to '{request.storage_dir}' and reading it from every node")
    storage = pass_files_around(nodes, str(folder), request.visible_seconds)
    shutil.rmtree(folder, ignore_errors=True)
    sums = tuple(_sums(nodes, facts, request))
    return PreflightReport(
        checked_at=utc_now(),
        seconds=round(time.monotonic() - started, 1),
        nodes=facts,
        storage=storage,
        all_reduce=sums,
        skipped=tuple(_skipped(nodes, facts, request)),
        warnings=tuple(warnings(request, facts, sums)),
        failures=tuple(failures(request, facts, storage, sums)),
    )


def _sums(nodes: list[Node], facts: tuple[NodeFacts, ...], request: PreflightRequest) -> Iterator[AllReduceFacts]:
    """Each machine by itself, then all together: what hangs then is between them."""
    if any(node.problem for node in facts):
        return
    groups = [[node] for node in nodes] if request.gpus_per_node > 1 else []
    for group in [*groups, *([nodes] if len(nodes) > 1 else [])]:
        _tell(f"summing over the GPUs of {' and '.join(node.name for node in group)}")
        found = sum_over(group, request)
        yield found
        if found.problem:
            return


def _skipped(nodes: list[Node], facts: tuple[NodeFacts, ...], request: PreflightRequest) -> Iterator[str]:
    if request.on_cpu or not request.gpus_per_node:
        why = "GPUs are only counted" if request.gpus_per_node else "no GPU is asked for"
        yield f"{why}: products, free memory and the patch embedding were left out, and sums went by gloo in place of NCCL"
    if any(node.problem for node in facts):
        yield "a node could not be looked at: no sum was tried"
    elif len(nodes) * max(1, request.gpus_per_node) == 1:
        yield "there is one node with one GPU or none: no sum was tried"


def in_words(report: PreflightReport) -> Iterator[str]:
    """For the log."""
    for node in report.nodes:
        gpus = [
            f"{gpu.name}, {gpu.free_bytes / GIB:.0f} of {gpu.total_bytes / GIB:.0f} GiB free, {gpu.matmul_tflops:g} TFLOP/s, "
            f"patch embedding {gpu.conv3d_ms:g} ms as Conv3d and {gpu.linear_ms:g} ms as a product"
            for gpu in node.gpus
        ]
        yield f"node {node.node}: {node.cpus} CPUs, {len(node.gpus)} GPUs{''.join(f'; {text}' for text in dict.fromkeys(gpus))}"
    for one in report.all_reduce:
        if not one.problem:
            yield f"{one.backend} over {one.ranks} ranks on {' and '.join(one.nodes)}: {one.bus_gb_per_s:g} GB/s a link"
    yield f"storage: seen by all nodes after {report.storage.seconds:g} s"
    yield from (f"left out: {sentence}" for sentence in report.skipped)
    yield from (f"warning: {sentence}" for sentence in report.warnings)
    yield from (f"{one.failure_class}: {one.sentence}" for one in report.failures)
    yield f"preflight done in {report.seconds:g} s"


def _together(found: tuple[Finding, ...]) -> Finding:
    """A mistake of the user's is told before a machine that may be replaced."""
    ordered = sorted(found, key=lambda one: one.failure_class is not FailureClass.USER_ERROR)
    more = f" (and {len(found) - 1} more, see the log)" if len(found) > 1 else ""
    return Finding(failure_class=ordered[0].failure_class, sentence=ordered[0].sentence + more)


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


def _write(report: PreflightReport, file: Path) -> None:
    """A report that cannot be written is no reason not to train."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report.model_dump_json(indent=2, exclude_none=True))
    except OSError as error:
        print(f"the report cannot be written to '{file}' ({error})", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
