"""Checkpoints in a bucket, against a real S3 server."""

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from object_storage import bucket, failing_proxy, free_port, object_server  # noqa: F401
from pod_runs import commit, make_manifest
from prism_trainer.checkpoints import commit_checkpoint, verify_checkpoint
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.errors import CheckpointCorruptError, StorageError, UnreachableError
from prism_trainer.stores.client import CHUNK_BYTES, PART_BYTES, ObjectClient
from prism_trainer.stores.objects import ObjectStore


@pytest.fixture
def store(bucket):  # noqa: F811
    return ObjectStore(ObjectClient.connect(bucket.endpoint, patience=(0.01, 0.01)))


@pytest.fixture
def uri(bucket):  # noqa: F811
    return f"{bucket.uri}/demo/checkpoints/sft/attempt-1/step-000001"


def many_files(folder, count=3, **fields):
    """A checkpoint with `count` payload files."""

    def write(part):
        for number in range(count):
            (part / f"shard-{number}").write_bytes(b"%d" % number * 1000)

    return commit_checkpoint(folder, {"policy": write}, lambda files: make_manifest(files, **fields))


def test_what_is_uploaded_comes_back_byte_for_byte(store, uri, tmp_path):
    there = store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    assert (there.uri, store.verify(there).digest) == (uri, there.digest)
    store.download_checkpoint(there, tmp_path / "b")
    assert verify_checkpoint(CheckpointRef(stage="sft", uri=str(tmp_path / "b"), digest=there.digest))
    assert (tmp_path / "b/manifest.json").read_bytes() == (tmp_path / "a/manifest.json").read_bytes()


def large_and_empty(folder):
    """A checkpoint with a file of three parts, whose content comes back, and an empty one."""
    content = bytes(range(256)) * (110 * 2**20 // 256) + b"end"
    assert 3 * PART_BYTES > len(content) > 2 * PART_BYTES > CHUNK_BYTES

    def write(part):
        (part / "large").write_bytes(content)
        (part / "empty").touch()

    commit_checkpoint(folder, {"policy": write}, lambda files: make_manifest(files))
    return content


@contextmanager
def recording_proxy(bucket, fails=lambda name: False):  # noqa: F811
    """A store whose requests go through a proxy, and the files it has put so far, parts of large ones by number; those may fail."""
    puts = []

    def look(_, method, path):
        if method != "PUT":
            return False
        address = urlsplit(path)
        part = parse_qs(address.query).get("partNumber")
        name = address.path.partition("/step-000001/")[2] + (f" part {part[0]}" if part else "")
        puts.append(name)
        return fails(name)

    with failing_proxy(bucket.endpoint, look) as endpoint:
        yield ObjectStore(ObjectClient.connect(endpoint, patience=(0.01,))), puts


def open_uploads(store, bucket):  # noqa: F811
    """Names of the large files that somebody has begun to send, whoever."""
    listed = store.client._fs.call_s3("list_multipart_uploads", Bucket=bucket.name)
    return [one["Key"] for one in listed.get("Uploads", [])]


def test_a_large_file_goes_in_parts_and_an_empty_one_goes_too(store, bucket, uri, tmp_path):  # noqa: F811
    content = large_and_empty(tmp_path / "a")
    with recording_proxy(bucket) as (beside, puts):
        ref = beside.upload_checkpoint(tmp_path / "a", uri)
    assert sorted(puts) == ["manifest.json", "policy/empty", *(f"policy/large part {number}" for number in (1, 2, 3))]
    store.download_checkpoint(ref, tmp_path / "b")
    assert (tmp_path / "b/policy/large").read_bytes() == content and (tmp_path / "b/policy/empty").stat().st_size == 0


class BrokenOffError(Exception):
    pass


@pytest.mark.parametrize("index", range(6))
def test_an_upload_interrupted_at_any_file_is_no_checkpoint_and_can_be_continued(store, bucket, uri, tmp_path, index):  # noqa: F811
    many_files(tmp_path / "a", count=5)
    before = [0]

    class Interrupting(ObjectClient):
        def upload(self, file, uri, sha256):
            self._count()
            super().upload(file, uri, sha256)

        def create(self, uri, content):
            self._count()
            return super().create(uri, content)

        def _count(self):
            with lock:
                before[0] += 1
                if before[0] > index:
                    raise BrokenOffError

    lock = threading.Lock()
    with pytest.raises(BrokenOffError):
        ObjectStore(Interrupting.connect(bucket.endpoint)).upload_checkpoint(tmp_path / "a", uri)
    assert store.read_manifest(uri) is None and len(bucket.names()) == index
    with pytest.raises(CheckpointCorruptError, match=r"has no manifest\.json"):
        store.verify(CheckpointRef(stage="sft", uri=uri))
    assert store.verify(store.upload_checkpoint(tmp_path / "a", uri)).step == 1


def test_a_second_try_sends_only_what_is_missing(store, bucket, uri, tmp_path):  # noqa: F811
    many_files(tmp_path / "a", count=5)
    with recording_proxy(bucket, lambda name: name == "policy/shard-3") as (failing, _), pytest.raises(StorageError):
        failing.upload_checkpoint(tmp_path / "a", uri)
    missing = sorted({f"policy/shard-{number}" for number in range(5)} - set(bucket.names(uri.removeprefix(f"{bucket.uri}/"))))
    assert "policy/shard-3" in missing and len(missing) < 5
    told = []
    with recording_proxy(bucket) as (beside, puts):
        ref = beside.upload_checkpoint(tmp_path / "a", uri, told.append)
    assert sorted(puts) == ["manifest.json", *missing] and told == [1000] * 5
    assert store.verify(ref).digest == ref.digest


@pytest.mark.parametrize("put", ["policy/model.safetensors", "policy/config.json"])
def test_a_file_of_the_same_name_and_size_and_another_content_is_sent_again(store, bucket, uri, tmp_path, put):  # noqa: F811
    commit(tmp_path / "a")
    store.client.upload(tmp_path / "a" / put, f"{uri}/{put}", "0" * 64)
    assert store.client.remembered_sha256(f"{uri}/{put}") == "0" * 64
    with recording_proxy(bucket) as (beside, puts):
        beside.upload_checkpoint(tmp_path / "a", uri)
    assert sorted(puts) == ["manifest.json", "policy/config.json", "policy/model.safetensors"]


def test_an_object_that_somebody_else_put_there_is_sent_again(store, bucket, uri, tmp_path):  # noqa: F811
    commit(tmp_path / "a")
    store.client.write(f"{uri}/policy/model.safetensors", (tmp_path / "a/policy/model.safetensors").read_bytes())
    with recording_proxy(bucket) as (beside, puts):
        beside.upload_checkpoint(tmp_path / "a", uri)
    assert "policy/model.safetensors" in puts


KILLED = """
import sys
from pathlib import Path
from prism_trainer.stores.objects import ObjectStore
ObjectStore.connect(sys.argv[1]).upload_checkpoint(Path(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture
def killed_upload(store, bucket, uri, tmp_path):  # noqa: F811
    """Of `large_and_empty`, by a SIGKILL while its last part is on the way."""
    large_and_empty(tmp_path / "a")
    under_way, let_go = threading.Event(), threading.Event()

    def hold(_, method, path):
        if "partNumber=3" in path:
            under_way.set()
            let_go.wait(60)
        return under_way.is_set()

    with failing_proxy(bucket.endpoint, hold) as endpoint:
        process = subprocess.Popen([sys.executable, "-c", KILLED, endpoint, tmp_path / "a", uri])
        assert under_way.wait(60)
        process.kill()
        process.wait()
        let_go.set()
    assert open_uploads(store, bucket) == [f"{uri.removeprefix(bucket.uri + '/')}/policy/large"]
    return tmp_path / "a"


def test_a_large_file_that_a_kill_broke_off_is_sent_anew_and_leaves_no_parts(store, bucket, uri, killed_upload):  # noqa: F811
    with recording_proxy(bucket) as (beside, puts):
        ref = beside.upload_checkpoint(killed_upload, uri)
    assert sorted(puts) == ["manifest.json", *(f"policy/large part {number}" for number in (1, 2, 3))]
    assert open_uploads(store, bucket) == [] and store.verify(ref)


def test_removing_a_checkpoint_takes_along_the_parts_of_a_file_that_a_kill_broke_off(store, bucket, uri, killed_upload):  # noqa: F811
    store.remove(uri)
    assert open_uploads(store, bucket) == [] and bucket.names() == []


def test_the_parts_of_a_neighbour_are_left_alone(store, bucket, uri):  # noqa: F811
    """`step-000001` begins the name of `step-0000010`, too."""
    key = uri.removeprefix(f"{bucket.uri}/") + "0/policy/large"
    store.client._fs.call_s3("create_multipart_upload", Bucket=bucket.name, Key=key)
    store.remove(uri)
    assert open_uploads(store, bucket) == [key]


def test_credentials_that_may_not_list_unfinished_uploads_still_commit(store, bucket, uri, tmp_path, caplog):  # noqa: F811
    large_and_empty(tmp_path / "a")
    with failing_proxy(bucket.endpoint, lambda _, method, path: method == "GET" and "uploads" in path and "AccessDenied") as endpoint:
        ref = ObjectStore(ObjectClient.connect(endpoint, patience=(0.01,))).upload_checkpoint(tmp_path / "a", uri)
    assert store.verify(ref) and "broken off are left where they are, if there are any" in caplog.text and "denies access" in caplog.text


def test_what_an_interrupted_upload_of_something_else_left_is_taken_away(store, bucket, uri, tmp_path):  # noqa: F811
    bucket.file(f"{uri}/policy").mkdir(parents=True)
    bucket.file(f"{uri}/policy/stale.safetensors").write_text("x")
    store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    assert bucket.names("demo/checkpoints/sft/attempt-1/step-000001") == ["manifest.json", "policy/config.json", "policy/model.safetensors"]


def test_uploading_what_is_there_already_changes_nothing(store, bucket, uri, tmp_path):  # noqa: F811
    commit(tmp_path / "a")
    first = store.upload_checkpoint(tmp_path / "a", uri)
    bucket.file(f"{uri}/policy/config.json").write_text("[]")
    assert store.upload_checkpoint(tmp_path / "a", uri) == first
    assert bucket.file(f"{uri}/policy/config.json").read_text() == "[]"


def test_a_committed_checkpoint_is_never_overwritten(store, bucket, uri, tmp_path):  # noqa: F811
    store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    before = bucket.file(f"{uri}/manifest.json").read_bytes()
    commit(tmp_path / "b", content=b"others")
    with pytest.raises(StorageError, match=r"already holds a committed checkpoint .* it is never overwritten"):
        store.upload_checkpoint(tmp_path / "b", uri)
    assert bucket.file(f"{uri}/manifest.json").read_bytes() == before


def losing_client(bucket, manifest):  # noqa: F811
    class Losing(ObjectClient):
        """Somebody else commits after this one has looked and before it commits."""

        def create(self, uri, content):
            self.write(uri, manifest)
            return super().create(uri, content)

    return Losing.connect(bucket.endpoint)


def test_who_loses_the_race_for_the_manifest_does_not_overwrite_it(bucket, uri, tmp_path):  # noqa: F811
    winner = Path(commit(tmp_path / "winner", content=b"won").uri, "manifest.json").read_bytes()
    commit(tmp_path / "loser", content=b"lost")
    with pytest.raises(StorageError, match="never overwritten"):
        ObjectStore(losing_client(bucket, winner)).upload_checkpoint(tmp_path / "loser", uri)
    assert bucket.file(f"{uri}/manifest.json").read_bytes() == winner


def test_who_loses_the_race_to_an_equal_checkpoint_has_committed(bucket, uri, tmp_path):  # noqa: F811
    mine = commit(tmp_path / "a")
    content = Path(mine.uri, "manifest.json").read_bytes()
    assert ObjectStore(losing_client(bucket, content)).upload_checkpoint(tmp_path / "a", uri).digest == mine.digest


@pytest.mark.parametrize("operation", ["verify", "download"])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.write_bytes(b"w" + file.read_bytes()[1:-1] + b"?"), "has another content than when it was committed"),
        (lambda file: file.write_bytes(b"short"), "has 5 bytes, expected 7"),
        (lambda file: file.unlink(), "is missing"),
    ],
    ids=["flipped", "short", "missing"],
)
def test_damage_in_the_bucket_is_refused_naming_the_file(store, bucket, uri, tmp_path, operation, damage, sentence):  # noqa: F811
    ref = store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    damage(bucket.file(f"{uri}/policy/model.safetensors"))
    with pytest.raises(CheckpointCorruptError, match=rf"{uri}/policy/model.safetensors' {sentence}.*restore the file, or remove '{uri}'"):
        store.verify(ref) if operation == "verify" else store.download_checkpoint(ref, tmp_path / "b")
    assert not (tmp_path / "b/manifest.json").exists()


def test_damage_on_the_way_up_is_not_committed(store, bucket, uri, tmp_path):  # noqa: F811
    commit(tmp_path / "a")
    (tmp_path / "a/policy/model.safetensors").write_bytes(b"weightz")
    with pytest.raises(CheckpointCorruptError, match="another content"):
        store.upload_checkpoint(tmp_path / "a", uri)
    assert store.read_manifest(uri) is None


def test_another_checkpoint_than_the_one_asked_for_is_refused(store, uri, tmp_path):
    ref = store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    with pytest.raises(CheckpointCorruptError, match="expected sha256:0000"):
        store.download_checkpoint(ref.model_copy(update={"digest": "sha256:" + "0" * 64}), tmp_path / "b")


def test_a_file_too_many_is_refused_and_never_copied(store, bucket, uri, tmp_path):  # noqa: F811
    ref = store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    bucket.file(f"{uri}/policy/adapter.safetensors").write_text("x")
    with pytest.raises(CheckpointCorruptError, match=r"adapter\.safetensors' is not part of it"):
        store.verify(ref)
    store.download_checkpoint(ref, tmp_path / "b")
    assert not (tmp_path / "b/policy/adapter.safetensors").exists()


def test_a_copy_is_continued_where_it_ended_and_loses_what_does_not_belong(store, bucket, uri, tmp_path):  # noqa: F811
    ref = store.upload_checkpoint(Path(many_files(tmp_path / "a").uri), uri)
    store.download_checkpoint(ref, tmp_path / "b")
    (tmp_path / "b/policy/shard-0").write_text("damaged")
    (tmp_path / "b/policy/other.partial").write_text("left")
    pieces = []
    ObjectStore(store.client, pieces.append).download_checkpoint(ref, tmp_path / "b")
    assert pieces == [1000] and verify_checkpoint(ref.model_copy(update={"uri": str(tmp_path / "b")}))


def test_whoever_is_told_of_progress_can_end_a_copy(store, uri, tmp_path):
    ref = store.upload_checkpoint(Path(many_files(tmp_path / "a", count=20).uri), uri)

    def stop(num_bytes):
        raise BrokenOffError

    with pytest.raises(BrokenOffError):
        ObjectStore(store.client, stop).download_checkpoint(ref, tmp_path / "b")
    assert not (tmp_path / "b/manifest.json").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(store, bucket, uri, tmp_path):  # noqa: F811
    ref = store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    manifest = store.read_manifest(uri)
    files = (*manifest.files, manifest.files[0].model_copy(update={"path": "../../outside"}))
    evil = manifest.model_copy(update={"files": files})
    bucket.file(f"{uri}/manifest.json").write_text(json.dumps(evil.to_file()))
    with pytest.raises(CheckpointCorruptError, match="leads out of its folder"):
        store.download_checkpoint(ref.model_copy(update={"digest": evil.digest}), tmp_path / "deep/er/b")


def test_removing_leaves_nothing_and_can_be_repeated(store, bucket, uri, tmp_path):  # noqa: F811
    store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    store.remove(uri)
    store.remove(uri)
    assert bucket.names() == [] and store.read_manifest(uri) is None


def test_folders_of_all_attempts_are_found_committed_or_not(store, bucket, uri, tmp_path):  # noqa: F811
    stage = uri.rsplit("/", 2)[0]
    assert store.checkpoint_folders(stage) == []
    store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri)
    bucket.file(f"{stage}/attempt-2/step-000002/policy").mkdir(parents=True)
    bucket.file(f"{stage}/attempt-2/step-000002/policy/x").write_text("x")
    assert store.checkpoint_folders(stage) == [uri, f"{stage}/attempt-2/step-000002"]


def test_a_plain_folder_and_a_file_are_copied_and_what_is_not_there_is_told(store, bucket, tmp_path):  # noqa: F811
    (bucket.folder / "base").mkdir()
    (bucket.folder / "base/config.json").write_text("{}")
    assert store.download_folder(f"{bucket.uri}/base", tmp_path / "base") == 1
    assert store.download_file(f"{bucket.uri}/base/config.json", tmp_path / "c.json") and (tmp_path / "c.json").read_text() == "{}"
    assert store.download_folder(f"{bucket.uri}/bas", tmp_path / "none") == 0
    assert not store.download_file(f"{bucket.uri}/base/nothing", tmp_path / "none")


def test_a_storage_that_is_busy_for_a_while_is_asked_again(bucket, uri, tmp_path):  # noqa: F811
    asked = set()

    def fails(_, *request):
        return request not in asked and not asked.add(request)

    with failing_proxy(bucket.endpoint, fails) as endpoint:
        store = ObjectStore(ObjectClient.connect(endpoint, patience=(0.01,) * 5))
        store.verify(store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri))


def test_a_connection_that_breaks_is_made_again(bucket, uri, tmp_path):  # noqa: F811
    def fails(number, *_):
        if number % 3 == 1:
            raise ConnectionError
        return False

    with failing_proxy(bucket.endpoint, fails) as endpoint:
        store = ObjectStore(ObjectClient.connect(endpoint, patience=(0.01,) * 5))
        store.verify(store.upload_checkpoint(Path(commit(tmp_path / "a").uri), uri))


def test_a_lost_answer_to_the_commit_is_no_conflict(bucket, uri, tmp_path):  # noqa: F811
    """The manifest was written and the answer was not heard: the second try finds its own manifest."""
    commit(tmp_path / "a")

    class Unheard(ObjectClient):
        def create(self, uri, content):
            super().create(uri, content)
            return super().create(uri, content)

    assert ObjectStore(Unheard.connect(bucket.endpoint)).upload_checkpoint(tmp_path / "a", uri)


def _refusal(endpoint, uri, error=StorageError):
    with pytest.raises(error) as refused:
        ObjectStore(ObjectClient.connect(endpoint, patience=(0.01,))).read_manifest(uri)
    return str(refused.value)


def test_a_bucket_that_is_not_there_is_a_sentence(bucket):  # noqa: F811
    said = _refusal(bucket.endpoint, "s3://nowhere/x")
    assert said == (
        f"'s3://nowhere/x/manifest.json': object storage at {bucket.endpoint} has no bucket 'nowhere'; "
        "make it, or correct spec.storage.objectStore.uri"
    )


def test_credentials_that_are_missing_wrong_or_damaged_are_sentences(bucket, monkeypatch, tmp_path):  # noqa: F811
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert f"no credentials for object storage at {bucket.endpoint} (no file '{file}')" in _refusal(bucket.endpoint, f"{bucket.uri}/x")
    file.write_text("[default]\n")
    assert f"('{file}' has no [default] with aws_access_key_id" in _refusal(bucket.endpoint, f"{bucket.uri}/x")
    file.write_text("[default]\naws_access_key_id=tester\naws_secret_access_key=wrong\n")
    said = _refusal(bucket.endpoint, f"{bucket.uri}/x")
    assert "does not accept the credentials (SignatureDoesNotMatch)" in said and "wrong" not in said
    file.write_text("[default]\naws_access_key_id=nobody\naws_secret_access_key=wrong\n")
    assert "does not accept the credentials (InvalidAccessKeyId)" in _refusal(bucket.endpoint, f"{bucket.uri}/x")


def test_an_endpoint_where_nobody_answers_may_answer_later(bucket):  # noqa: F811
    said = _refusal(f"http://127.0.0.1:{free_port()}", f"{bucket.uri}/x", UnreachableError)
    assert "does not answer (Could not connect to the endpoint URL" in said and "spec.storage.objectStore.endpoint" in said


def test_an_endpoint_that_is_no_object_storage_is_a_sentence(bucket):  # noqa: F811
    import http.server

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = _refusal(f"http://127.0.0.1:{server.server_address[1]}", f"{bucket.uri}/x")
        server.shutdown()
    assert "does not answer as S3 does" in said
    assert "correct the address, or spec.storage.objectStore.endpoint" in _refusal("127.0.0.1:9000", f"{bucket.uri}/x")


def test_denied_access_names_what_is_needed(bucket):  # noqa: F811
    from botocore.exceptions import ClientError

    from prism_trainer.stores.sentences import refusal

    cause = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
    error = PermissionError("no")
    error.__cause__ = cause
    assert str(refusal("s3://b/x", None, error)) == (
        "'s3://b/x': object storage at AWS denies access (AccessDenied); allow these credentials to list, read, write and delete there"
    )
