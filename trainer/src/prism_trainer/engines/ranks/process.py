"""`python -m prism_trainer.engines.ranks.process MODULE FOLDER`: one rank.

Runs `MODULE.main(FOLDER)`, and leaves a verdict where that fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

from pydantic import BaseModel

from prism_trainer.contract.report import FailureClass
from prism_trainer.errors import PrismError, StorageError
from prism_trainer.failures import class_of
from prism_trainer.library_settings import quiet_libraries

PARENT = "PRISM_RANK_PARENT"
VERDICT = "PRISM_RANK_VERDICT"
LOOK_SECONDS = 1.0


class Verdict(BaseModel):
    """Why a rank failed. The earliest failure is the cause; the others' are of what it left behind."""

    at: float
    message: str
    failure_class: FailureClass | None = None
    """None where it is not one of our own sentences."""
    out_of_memory: bool = False


def main(arguments: list[str]) -> int:
    module, folder = arguments
    threading.Thread(target=_end_with, args=(int(os.environ[PARENT]),), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the driver decides where they stop, by message
    quiet_libraries()
    try:
        _require_folder(Path(folder))
        _leave_collectives_to_gloo()
        importlib.import_module(module).main(Path(folder))
    except BaseException as error:
        at = time.time()
        traceback.print_exc()
        _leave(error, at)
        sys.stderr.flush()
        os._exit(1)  # a process group of peers that still wait would hold an ordinary exit
    return 0


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise StorageError(
            f"'{folder}' is not there on node {socket.gethostname()}; a stage on several nodes needs a volume that all of them mount "
            "(ReadWriteMany)"
        )


def _leave_collectives_to_gloo() -> None:
    """Without a GPU DeepSpeed would compile collective operations of its own, for a minute and at every new place."""
    if importlib.util.find_spec("deepspeed") and os.environ.get("DS_ACCELERATOR") == "cpu":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _leave(error: BaseException, at: float) -> None:
    ours = isinstance(error, PrismError)
    message = str(error) if ours else f"{type(error).__name__}: {error}"[:1500]
    verdict = Verdict(
        at=at,
        message=message,
        failure_class=error.failure_class if isinstance(error, PrismError) else None,
        out_of_memory=class_of(error) is FailureClass.OUT_OF_MEMORY,
    )
    file = Path(os.environ[VERDICT])
    partial = file.with_suffix(".partial")
    partial.write_text(verdict.model_dump_json())
    partial.replace(file)


def _end_with(parent: int) -> None:
    """Nobody is left to tell: whoever started this process is gone."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
