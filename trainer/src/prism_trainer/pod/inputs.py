"""Everything the trainer reads, brought to local paths: checkpoints, plain models, Hugging Face ids, data files."""

from __future__ import annotations

import logging
import posixpath
from pathlib import Path

from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import BenchmarkChoice, EvaluationConfig, StageConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.pod import PodJob
from prism_trainer.errors import DataError, ModelError
from prism_trainer.hub.fetching import fetch
from prism_trainer.hub.wanted import MODEL_FILES, model_id
from prism_trainer.pod.copies import Copies
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop
from prism_trainer.pod.survey import newest_final
from prism_trainer.stores import FolderStore, Store, is_object

log = logging.getLogger(__name__)


def bring_inputs(job: StageJob, pod: PodJob, copies: Copies, places: Places, stop: Stop) -> StageJob:
    """The job with local inputs and data. What names a checkpoint without its digest gets the digest, so that it is verified."""
    inputs = {role: _model(ref, pod, copies, places, stop) for role, ref in job.inputs.items()}
    data = tuple(_data(source, copies) for source in job.data)
    return job.model_copy(update={"inputs": inputs, "data": data, "config": _with_benchmarks(job.config, copies)})


def _with_benchmarks(config: StageConfig, copies: Copies) -> StageConfig:
    """Folders of benchmarks that lie in object storage; those of the hub are fetched by the stage itself."""
    if not isinstance(config, EvaluationConfig):
        return config
    return config.model_copy(update={"benchmarks": tuple(_benchmark(one, copies) for one in config.benchmarks)})


def _benchmark(one: BenchmarkChoice, copies: Copies) -> BenchmarkChoice:
    if one.uri is None or not is_object(one.uri):
        return one
    folder = copies.path(one.uri.rstrip("/"))
    if not copies.store.download_folder(one.uri.rstrip("/"), Path(folder)):
        raise DataError(f"benchmark '{one.name}': nothing lies at '{one.uri}'; correct the stage's config.benchmarks[].uri")
    return one.model_copy(update={"uri": folder})


def _model(ref: CheckpointRef, pod: PodJob, copies: Copies, places: Places, stop: Stop) -> CheckpointRef:
    ref = _of_a_stage(ref, copies.store if is_object(ref.uri) else FolderStore())
    found = _copied(ref, copies) if is_object(ref.uri) else _local(ref)
    if found is not None:
        return found
    repository = model_id(ref.uri, posixpath.dirname(pod.storage_uri.rstrip("/")))
    if repository is None:
        raise ModelError(f"input '{ref.stage}': nothing lies at '{ref.uri}'; correct its uri, or put the model there")
    return _from_hub(ref, repository, places.copies_dir(pod) / "hf", places, stop)


def _of_a_stage(ref: CheckpointRef, store: Store) -> CheckpointRef:
    """A stage's folder stands for the last final checkpoint in it."""
    if store.read_manifest(ref.uri) is not None:
        return ref
    final = newest_final(store, ref.uri, ref.digest)
    return ref.model_copy(update={"uri": final.uri, "digest": final.manifest.digest, "step": final.manifest.step}) if final else ref


def _copied(ref: CheckpointRef, copies: Copies) -> CheckpointRef | None:
    if ref.digest is not None or copies.store.read_manifest(ref.uri) is not None:
        return copies.fetch_checkpoint(ref)
    return copies.fetch_model(ref)


def _local(ref: CheckpointRef) -> CheckpointRef | None:
    folder = Path(ref.uri)
    manifest = read_manifest(folder) if ref.digest is None else None
    if manifest is not None:
        return ref.model_copy(update={"digest": manifest.digest, "step": manifest.step})
    return ref if folder.exists() or ref.digest is not None else None


def _from_hub(ref: CheckpointRef, repository: str, folder: Path, places: Places, stop: Stop) -> CheckpointRef:
    log.info("model '%s' is not on the storage; it is fetched from the hub", repository)
    snapshot = fetch("model", repository, ref.revision, MODEL_FILES, cache=folder, waiting=stop.check, command=places.hub)
    return ref.model_copy(update={"uri": str(snapshot), "revision": None})


def _data(source: DataSource, copies: Copies) -> DataSource:
    """A path that does not exist is left to the trainer, whose sentence names it."""
    if not is_object(source.uri):
        return source
    path = copies.fetch_data(source.uri)
    if path is None:
        raise DataError(f"data set '{source.uri}' does not exist; correct the stage's data[].uri")
    return source.model_copy(update={"uri": path})
