"""Which checkpoint an attempt goes on from, and which ones may go."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pod_runs import DIGEST, OTHER_DIGEST, PodRun, commit, make_manifest
from prism_trainer.contract.checkpoint import CheckpointManifest, FileEntry, Provenance
from prism_trainer.errors import CheckpointCorruptError
from prism_trainer.pod.copies import Copies
from prism_trainer.pod.resume import find_resume_point, newest_sound
from prism_trainer.pod.retention import needless, superseded
from prism_trainer.pod.survey import Committed, Survey, Unfinished, survey
from prism_trainer.stores import FolderStore

FILES = (FileEntry(path="policy/x", size=0, sha256="0" * 64),)
ROOT = "/storage/demo/checkpoints/sft"


class FakeStore:
    """Folders with manifests, in memory."""

    def __init__(self, folders: dict[str, CheckpointManifest | None]):
        self.folders = folders

    def checkpoint_folders(self, uri):
        return sorted(self.folders)

    def read_manifest(self, uri):
        manifest = self.folders[uri]
        if manifest == "damaged":
            raise CheckpointCorruptError(f"'{uri}/manifest.json' cannot be read")
        return manifest


def manifest(attempt, step, **fields):
    provenance = Provenance(attempt=attempt, created_at="2026-01-01T00:00:00Z", seconds=1.0)
    return make_manifest(FILES, step=step, provenance=provenance, **fields)


ONE = st.one_of(
    st.none(),
    st.just("damaged"),
    st.builds(
        lambda step, final, digest, run, stage: make_manifest(FILES, step=step, final=final, config_digest=digest, run=run, stage=stage),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([DIGEST, DIGEST, OTHER_DIGEST]),
        st.sampled_from(["demo", "demo", "other"]),
        st.sampled_from(["sft", "sft", "rlvr"]),
    ),
)
FOLDERS = st.dictionaries(st.tuples(st.integers(1, 4), st.integers(0, 5)), ONE).map(
    lambda found: {f"{ROOT}/attempt-{attempt}/step-{number:06d}": one for (attempt, number), one in found.items()}
)


def job(attempt=3):
    return PodRun(Path("/nowhere"), "/storage/demo").job(attempt)


@given(folders=FOLDERS, damaged=st.sets(st.tuples(st.integers(1, 4), st.integers(0, 5))))
def test_the_resume_point_is_the_newest_sound_intermediate_of_this_configuration(folders, damaged):
    """`damaged` payloads show only when they are read."""
    broken = {f"{ROOT}/attempt-{attempt}/step-{number:06d}" for attempt, number in damaged}

    def open_one(one):
        if one.uri in broken:
            raise CheckpointCorruptError(one.uri)
        return one.ref

    found, passed_over = newest_sound(survey(FakeStore(folders), job()).intermediate, open_one)
    ours = {
        uri: (one.step, int(uri.split("attempt-")[1][0]))
        for uri, one in folders.items()
        if isinstance(one, CheckpointManifest) and (one.run, one.stage, one.config_digest, one.final) == ("demo", "sft", DIGEST, False)
    }
    sound = {uri: order for uri, order in ours.items() if uri not in broken}
    assert (found is None) == (not sound)
    if found:
        assert sound[found.uri] == max(sound.values()) and found.digest == folders[found.uri].digest
        assert {one.uri for one in passed_over} == {uri for uri in ours.keys() & broken if ours[uri] > sound[found.uri]}


@given(folders=FOLDERS, attempt=st.integers(1, 4), keep=st.integers(1, 3), done=st.booleans())
def test_retention_never_touches_finals_other_configurations_or_later_attempts(folders, attempt, keep, done):
    found = survey(FakeStore(folders), job(attempt))
    going = needless(found, attempt, keep) if done else superseded(found, attempt, keep)
    assert len(going) == len(set(going))
    for uri in going:
        one = folders[uri]
        assert int(uri.split("attempt-")[1][0]) <= attempt
        assert one is None or (one != "damaged" and not one.final and one.config_digest == DIGEST)
        assert done or one is not None, "an unfinished folder may be one that is being written"


@given(folders=FOLDERS, attempt=st.integers(1, 4), keep=st.integers(1, 3))
def test_while_a_stage_is_under_way_its_newest_checkpoints_stay(folders, attempt, keep):
    found = survey(FakeStore(folders), job(attempt))
    mine = [one.uri for one in found.intermediate if one.attempt == attempt]
    going = superseded(found, attempt, keep)
    assert not set(mine[-keep:]) & set(going)
    assert mine or not going, "what the attempt went on from stays until it has a newer one"


def committed(attempt, step):
    return Committed(f"{ROOT}/attempt-{attempt}/step-{step:06d}", attempt, manifest(attempt, step))


def test_an_own_checkpoint_counts_as_newer_than_a_damaged_one_with_a_higher_step():
    found = Survey((), (committed(1, 20), committed(2, 30), committed(1, 40)), ())
    assert superseded(found, 2, 1) == [committed(1, 20).uri, committed(1, 40).uri]


def test_when_done_zero_are_kept_if_asked_and_later_attempts_stay():
    found = Survey((), (committed(1, 1), committed(2, 2), committed(3, 3)), (Unfinished("u1", 1), Unfinished("u3", 3)))
    assert needless(found, 2, 0) == [committed(1, 1).uri, committed(2, 2).uri, "u1"]
    assert needless(replace(found, unfinished=()), 2, 1) == [committed(1, 1).uri]


def test_folders_that_are_no_attempts_are_nobodys_business(tmp_path):
    pod = PodRun(tmp_path)
    for name in ("attempt-0", "attempt-x", "old-attempt-1", "attempt-01"):
        commit(pod.path(f"checkpoints/sft/{name}/step-000001"))
    assert survey(FolderStore(), pod.job()) == Survey((), (), ())


def test_an_unreadable_manifest_counts_for_nothing_and_stays(tmp_path, caplog):
    pod = PodRun(tmp_path)
    older = commit(pod.path("checkpoints/sft/attempt-1/step-000001"))
    commit(pod.path("checkpoints/sft/attempt-1/step-000002"), step=2)
    file = pod.path("checkpoints/sft/attempt-1/step-000002/manifest.json")
    file.write_text(file.read_text().replace('"step": 2', '"step": 3'))
    copies = Copies(tmp_path / "work", None, lambda _: None)
    assert find_resume_point(pod.job(2), FolderStore(), copies).uri == older.uri
    assert file.exists() and "was changed after it was written" in caplog.text


def test_paths_and_addresses_are_each_others_copies(tmp_path):
    copies = Copies(tmp_path / "s3", None, lambda _: None)
    assert copies.path("s3://b/run/checkpoints") == str(tmp_path / "s3/b/run/checkpoints")
    assert copies.uri(copies.path("s3://b/run/checkpoints")) == "s3://b/run/checkpoints"
    assert copies.path("/prism/storage/demo") == copies.uri("/prism/storage/demo") == "/prism/storage/demo"
