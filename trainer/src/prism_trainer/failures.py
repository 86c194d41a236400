"""The class of a failure that a library raised, or that it wrote about before it died. Names and words only: no library is imported.

Ray wraps what a worker raised in a class that inherits from both (`RayTaskError(ValueError)`), so the names of all its ancestors count.
"""

from __future__ import annotations

import errno
import re

from prism_trainer.contract.report import FailureClass

MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError")
"""Python's; torch's and Ray's."""
LOST_WORKER_ERRORS = (
    *("RayActorError", "ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError"),
    *("OwnerDiedError", "ObjectLostError", "RaySystemError", "RayChannelError"),
)
"""Ray's for a worker or machine that is gone."""
LOST_PEER_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError")
"""torch.distributed's for what the ranks that are left then find."""
LOST_ERRORS = (*LOST_WORKER_ERRORS, *LOST_PEER_ERRORS)
LOST_WORDS = ("uncorrectable ECC", "fallen off the bus", "CUDA error: unspecified launch failure", "NCCL communicator was aborted")
"""A GPU that is broken, or a rank that no longer answers."""
_ROLLOUTS = "config.promptsPerStep (rollouts)"
_VLLM = "config.gpu.memoryShare (vLLM)"
OF_A_RANK = "lower config.microBatchSize, or set config.gpu.offload"
FOR_MEMORY = {
    "local": {
        "sft": "lower config.microBatchSize",
        "discriminator": "lower config.microBatchSize",
        "alignment": f"lower config.microBatchSize (training) or {_ROLLOUTS}",
        "rlvr": f"lower config.microBatchSize (training) or {_ROLLOUTS}",
        "evaluation": "lower config.batchSize",
    },
    "verl": {
        "sft": OF_A_RANK,
        "discriminator": OF_A_RANK,
        "alignment": f"lower config.gpu.tokensPerGpu (policy), config.microBatchSize (discriminator) or {_VLLM}, or set config.gpu.offload",
        "rlvr": f"lower config.gpu.tokensPerGpu (training) or {_VLLM}, or set config.gpu.offload",
        "evaluation": f"lower config.batchSize or {_VLLM}",
    },
}
"""What a stage can do with less of, by engine and kind: each names what its engine reads."""
_RAYS_GUESSES = re.compile(r"(?:There are some potential root causes|Some common causes include)\b.*")
"""Ray guesses at memory whenever a worker dies, to the end of the line."""
_FACTS = {"class_name": "", "ip": "on ", "pid": "process "}


def class_of(error: BaseException) -> FailureClass | None:
    """Of an exception; None for one that is not of a library's."""
    names = {ancestor.__name__ for ancestor in type(error).__mro__}
    if names & {*MEMORY_ERRORS} or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return FailureClass.OUT_OF_MEMORY
    if names & {*LOST_ERRORS}:
        return FailureClass.OUT_OF_MEMORY if _was_killed_for_memory(str(error)) else FailureClass.NODE_LOST
    if isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_WORDS):
        return FailureClass.OUT_OF_MEMORY
    if any(words in str(error) for words in LOST_WORDS):
        return FailureClass.NODE_LOST
    return None


def lost_in_words(error: BaseException) -> str:
    """The sentence for an error that is NodeLost."""
    text = str(error)
    if {ancestor.__name__ for ancestor in type(error).__mro__} & {*LOST_WORKER_ERRORS}:
        return lost_worker(text)
    last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    return f"a GPU or a rank no longer answers: {(last or [type(error).__name__])[0][:300]}"


def class_of_words(text: str) -> FailureClass | None:
    """Of the last words of a process that died without a result: the last name of an error in them counts, else any of the words."""
    text = _RAYS_GUESSES.sub("", text)
    if _was_killed_for_memory(text):
        return FailureClass.OUT_OF_MEMORY
    named = re.findall(rf"\b({'|'.join((*MEMORY_ERRORS, *LOST_ERRORS))})\b", text)
    if named:
        return FailureClass.OUT_OF_MEMORY if named[-1] in MEMORY_ERRORS else FailureClass.NODE_LOST
    if any(words in text for words in MEMORY_WORDS):
        return FailureClass.OUT_OF_MEMORY
    return FailureClass.NODE_LOST if any(words in text for words in LOST_WORDS) else None


def lost_worker(text: str) -> str:
    """What Ray says of a dead worker, without its guesses: `a Ray worker (Trainer, process 17, on 10.0.0.2) is gone: ...`."""
    text = _RAYS_GUESSES.sub("", text)
    found = {name: re.search(rf"^\s*{name}: (\S+)", text, re.MULTILINE) for name in _FACTS}
    who = ", ".join(f"{_FACTS[name]}{match[1]}" for name, match in found.items() if match)
    why = re.search(r"(The actor is dead because.*|Worker exit type.*|The actor died because.*)", text, re.DOTALL)
    reason = " ".join((why[1] if why else text).split()).rstrip(". ")[:300]
    return f"a Ray worker{f' ({who})' if who else ''} is gone: {reason}"


def _was_killed_for_memory(text: str) -> bool:
    """By Ray's own watch on the node's memory."""
    return "NODE_OUT_OF_MEMORY" in text or "running low on memory" in text
