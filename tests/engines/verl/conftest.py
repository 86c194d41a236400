"""verl on this machine's CPU: its environment, a tiny policy; and a real Ray with two GPUs that are only counted."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from prism_trainer.engines.verl.cluster import CPU_ENVIRONMENT, ENVIRONMENT

# verl looks at it when it is imported; without TransferQueue, which wants Ray
os.environ.update({**ENVIRONMENT, **CPU_ENVIRONMENT})
del os.environ["TRANSFER_QUEUE_ENABLE"]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ray_address():
    """Of a Ray of our own, whose workers find the tests' modules."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets have short paths
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]), "RAY_USAGE_STATS_ENABLED": "0"}
    context = ray.init(
        num_cpus=16, num_gpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20, _temp_dir=folder
    )
    address = context.address_info["gcs_address"]
    os.environ["RAY_ADDRESS"] = address
    yield address
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory) -> Path:
    from model import write_base_model

    folder = tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def policy_dir(base_dir, tmp_path_factory) -> Path:
    """The base model, taught the format."""
    from verl_jobs import teach_format

    folder = tmp_path_factory.mktemp("taught")
    teach_format(base_dir, folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    from verl_jobs import write_data

    return write_data(tmp_path_factory.mktemp("data"))
