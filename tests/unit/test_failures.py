"""What a library raised, or wrote before it died, has a class: by names and words, because the libraries are not here."""

import errno

import pytest

from prism_trainer.failures import class_of, class_of_words, lost_in_words, lost_worker

KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: WorkerDict
\tactor_id: 4b5b8
\tpid: 4711
\tip: 10.0.0.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a \
connection error code 2. End of file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, \
(2) ray stop --force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another unexpected error."""
FOR_MEMORY = KILLED.replace("SYSTEM_ERROR", "NODE_OUT_OF_MEMORY")


def raised(names, text, base=Exception):
    """An exception whose classes bear these names, the first being that of all the others."""
    made = base
    for name in reversed(names):
        made = type(name, (made,), {})
    return made(text)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised(["ActorDiedError", "RayActorError"], KILLED), "NodeLost"),
        (raised(["ActorDiedError", "RayActorError"], FOR_MEMORY), "OutOfMemory"),
        (raised(["RayTaskError(ActorDiedError)", "ActorDiedError"], KILLED), "NodeLost"),
        (raised(["RayTaskError(OutOfMemoryError)", "OutOfMemoryError"], "CUDA out of memory", RuntimeError), "OutOfMemory"),
        (raised(["OutOfMemoryError"], "Task was killed due to the node running low on memory."), "OutOfMemory"),
        (raised(["DistBackendError"], "NCCL error: remote process exited", RuntimeError), "NodeLost"),
        (raised(["AcceleratorError"], "CUDA error: uncorrectable ECC error encountered", RuntimeError), "NodeLost"),
        (raised(["RayTaskError(ValueError)"], "bad row", ValueError), None),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "OutOfMemory"),
        (MemoryError(), "OutOfMemory"),
        (OSError(errno.ENOMEM, "x"), "OutOfMemory"),
        (OSError(errno.ENOSPC, "x"), None),
        (ValueError("the actor is dead"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_of_a_library_has_the_class_of_what_happened(error, expected):
    assert class_of(error) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (KILLED, None),
        (f"ray.exceptions.ActorDiedError: {KILLED}", "NodeLost"),
        (f"ray.exceptions.ActorDiedError: {FOR_MEMORY}", "OutOfMemory"),
        ("torch.OutOfMemoryError: CUDA out of memory.\nray.exceptions.RayTaskError(OutOfMemoryError)", "OutOfMemory"),
        ("RuntimeError: CUDA error: out of memory", "OutOfMemory"),
        ("GPU has fallen off the bus", "NodeLost"),
        ("KeyError: 'images'", None),
        ("", None),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_last_words_have_the_class_of_the_error_they_name_and_rays_guesses_count_for_nothing(words, expected):
    assert class_of_words(words) == expected


def test_a_dead_worker_is_told_by_class_machine_and_process_without_rays_guesses():
    told = lost_worker(KILLED)
    assert told.startswith(
        "a Ray worker (WorkerDict, on 10.0.0.2, process 4711) is gone: The actor is dead because its worker process has died"
    )
    assert told.endswith("End of file") and "OOM killer" not in told and "\n" not in told


def test_a_rank_that_finds_its_peers_gone_says_so():
    error = raised(["DistBackendError"], "traceback\nNCCL error: remote process exited", RuntimeError)
    assert lost_in_words(error) == "a GPU or a rank no longer answers: NCCL error: remote process exited"
