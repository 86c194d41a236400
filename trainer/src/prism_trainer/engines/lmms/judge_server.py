"""A judge of the stage's own: `vllm serve` on this node's GPUs, known to this process alone, and gone with it."""

from __future__ import annotations

import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from prism_trainer.checkpoints import digest_plain_model, read_manifest
from prism_trainer.contract.configs import Judge as JudgeConfig
from prism_trainer.engines.lmms.arguments import EVERYWHERE, num_positions
from prism_trainer.engines.lmms.judge_host import AnyHost, Machine, host
from prism_trainer.errors import ModelError, Stopped
from prism_trainer.evaluation.judge import Judge

HOST = "127.0.0.1"
MAX_LENGTH = 16384
"""Tokens of a question with its reply; the longest question of the seven benchmarks is a few thousand."""
START_SECONDS = 1800.0
_TICK = 0.2


def judge_dir(uri: str) -> Path:
    """The model's directory: the folder itself, or the policy of a checkpoint; ModelError where it is neither."""
    if "://" in uri:
        raise ModelError(f"config.judge.uri is '{uri}', which is not fetched; give a folder, or the address of a server as baseUrl")
    folder = Path(uri)
    if read_manifest(folder) is not None:
        folder = folder / "policy"
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ModelError(f"config.judge.uri: '{folder.absolute()}' is not a model directory (config.json and .safetensors); correct it")
    return folder


@contextmanager
def served(config: JudgeConfig, folder: Path, share: float, verdicts: Path, log: Path, stop: Callable[[], bool]) -> Iterator[Judge]:
    """A judge to ask while the context lasts, on GPUs whose memory is vLLM's by `share`. `stop` says whether the stage was asked to stop.

    Its verdicts are found by the digest of its files, since two models may have one name.
    """
    port, key = _free_port(), secrets.token_hex(16)
    with host() as server:
        command = command_of(config, folder, server.machine(share), port)
        server.start(command, {**EVERYWHERE, "VLLM_API_KEY": key}, log)
        _wait_until_ready(server, port, folder, log, stop)
        own = config.model_copy(update={"base_url": f"http://{HOST}:{port}/v1"})
        with Judge(own, verdicts, stop, key=key, identity=digest_plain_model(folder)) as judge:
            yield judge


def command_of(config: JudgeConfig, folder: Path, machine: Machine, port: int) -> list[str]:
    """The key is not on it: anybody on the machine may read a command line."""
    size, replicas = machine.split(sum(file.stat().st_size for file in folder.glob("*.safetensors")))
    options = {
        "served-model-name": config.model,
        "host": HOST,
        "port": port,
        "max-model-len": min(num_positions(folder), MAX_LENGTH),
        "max-num-seqs": config.concurrency,
        "generation-config": "vllm",
        **({"gpu-memory-utilization": machine.memory_share, "tensor-parallel-size": size} if machine.num_gpus else {"dtype": "float32"}),
        **({"data-parallel-size": replicas} if replicas > 1 else {}),
    }
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [
        sys.executable,
        "-m",
        "vllm.entrypoints.cli.main",
        "serve",
        str(folder),
        *given,
        *([] if machine.num_gpus else ["--enforce-eager"]),
    ]


def _wait_until_ready(server: AnyHost, port: int, folder: Path, log: Path, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(port):
        if stop():
            raise Stopped(None)
        code = server.exit_code()
        if code is not None or time.monotonic() > end:
            how = f"ended with {code}" if code is not None else f"was not ready within {START_SECONDS:g} s"
            raise ModelError(f"judge '{folder}' cannot be served: vLLM {how} ({_last_error(log)}); its log is '{log}'")
        time.sleep(_TICK)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/health", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if "Error" in line]
    return lines[-1][-300:] if lines else "without a word"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
