"""What an attempt checks before it goes on, and what it leaves behind when it saves."""

import pytest

from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.report import FailureClass
from prism_trainer.engines.local.session import Session
from prism_trainer.errors import PrismError
from prism_trainer.reporting import Reporter


@pytest.fixture
def open_session(tmp_path):
    """An attempt on one data set and one plain model."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    (tmp_path / "base/model.safetensors").write_bytes(b"1")

    def open_(**fields):
        job = StageJob(
            run="r", stage="sft", attempt=1, engine="local", seed=0, config=SftConfig(), config_digest="c",
            inputs={"policy": CheckpointRef(stage="model", uri=str(tmp_path / "base"))},
            data=(DataSource(uri=str(tmp_path / "rows.jsonl")),), output_uri=str(tmp_path / "out"), report_dir=str(tmp_path), **fields,
        )  # fmt: skip
        return Session(job, Reporter(tmp_path, "sft", 1))

    return open_


def _commit(session, step, final=False):
    return session.commit(step, {"policy": lambda folder: (folder / "x").write_text("x")}, {}, final=final)


@pytest.mark.parametrize(
    ("file", "named"),
    [("rows.jsonl", r"data set '.*rows\.jsonl' is sha256:"), ("base/model.safetensors", r"input 'policy' at '.*base' is sha256:")],
)
def test_what_changed_since_the_checkpoint_is_named_with_a_way_out_that_works(open_session, tmp_path, file, named):
    ref = _commit(open_session(), 2)
    assert open_session(resume_from=ref).first_step == 2
    (tmp_path / file).write_text("changed")
    with pytest.raises(PrismError, match=rf"{named}.*, expected sha256:.*or remove '{ref.uri}' to start the stage over") as caught:
        open_session(resume_from=ref)
    assert caught.value.failure_class is FailureClass.USER_ERROR


def test_a_resumable_checkpoint_takes_the_place_of_older_ones_and_a_final_one_of_none(open_session, tmp_path):
    session = open_session(keep_intermediate=2)
    for step in (999_999, 1_000_000, 1_000_001):
        _commit(session, step)
    _commit(session, 1_000_002, final=True)
    kept = sorted(manifest.step for folder in (tmp_path / "out").iterdir() if (manifest := read_manifest(folder)))
    assert kept == [1_000_000, 1_000_001, 1_000_002]
