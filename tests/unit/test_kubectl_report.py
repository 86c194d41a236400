"""The report of a run on a cluster: from its folder of the storage, or from the object alone."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from api_stub import api_stub, write_kubeconfig
from fake_run import FakeRun
from prism_operator.cli import app
from prism_operator.report.folder import read_run

MOUNT = "/prism/storage"


@pytest.fixture
def api(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with api_stub() as stub:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", stub.url)))
        yield stub


def on_a_cluster(folder):
    """The folder as a stage's container leaves it, and the object as the operator does."""
    fake = FakeRun(folder).finished()
    raw = json.loads((folder / "status.json").read_text())
    raw["spec"]["storage"] = {"pvc": {"claimName": "runs"}}
    for stage in raw["spec"]["stages"]:
        stage["data"] = [{"uri": f"data/{stage['name']}.parquet"}]
    for stage in raw["status"]["stages"]:
        step = sorted((folder / "checkpoints" / stage["name"]).glob("attempt-*/step-*"))[-1]
        number = int(step.parent.name.rpartition("-")[2])
        uri = f"{MOUNT}/{step.relative_to(folder.parent)}"
        stage["checkpoint"] = {"uri": uri, "digest": fake.digests[stage["name"]], "attempt": number}
        stage["attempts"] = [{"number": number, "outcome": "Succeeded"}]
    shutil.move(folder / "results.json", next((folder / "checkpoints/evaluation").glob("*/*/results")) / "results.json")
    (folder / "status.json").unlink()
    for job in folder.glob("stages/*/*/job.json"):
        job.unlink()
    return raw


def report(*arguments):
    found = CliRunner().invoke(app, ["report", "digits", *map(str, arguments)], prog_name="kubectl prism")
    return found.exit_code, found.stdout.strip(), found.stderr


def test_the_page_of_a_storage_folder_is_the_page_of_a_local_run(api, tmp_path):
    local = tmp_path / "local"
    FakeRun(local).finished()
    folder = tmp_path / "digits"
    api.put_run(on_a_cluster(folder))
    code, path, err = report("--from", folder)
    assert (code, path, err) == (0, str(folder / "report.html"), "")
    page = (folder / "report.html").read_text()
    assert "Held-out accuracy rose from 43.5" in page and 'id="responses"' in page and 'id="curves"' in page
    assert "status.json" not in page
    assert sorted(p.name for p in (folder / "plots").iterdir()) == sorted(f"{name}.png" for name in plots_of(local))
    assert read_run(folder).rows == read_run(local).rows
    assert "rollout.maxResponseTokens" in page, "the jobs, which are not on the storage, are planned again"


def plots_of(folder):
    from prism_operator.report import write_report

    write_report(folder)
    return [path.stem for path in (folder / "plots").iterdir()]


def test_without_the_storage_the_object_tells_what_it_knows(api, tmp_path):
    api.put_run(on_a_cluster(tmp_path / "digits"))
    code, path, _ = report()
    page = (tmp_path / path).read_text()
    assert (code, path) == (0, "digits-report/report.html")
    assert "All stages are verified." in page and "rollout.maxResponseTokens" in page
    assert "give kubectl prism report --from" in page and 'id="curves"' not in page
    assert not (tmp_path / "digits-report/plots").exists()


def test_a_failed_attempt_is_in_the_page_of_the_object(api, tmp_path):
    raw = on_a_cluster(tmp_path / "digits")
    attempt = {"number": 1, "outcome": "Failed", "failureClass": "UserError", "message": "it broke"}
    times = {"startedAt": "2026-01-01T11:00:00Z", "finishedAt": "2026-01-01T11:02:00Z"}
    raw["status"]["stages"][-1] |= {"state": "Failed", "attempts": [attempt | times], "checkpoint": None}
    api.put_run(raw)
    _, path, _ = report()
    assert "2m 00s" in (tmp_path / path).read_text()


def test_stages_that_were_skipped_or_not_reached_are_no_obstacle(api, tmp_path):
    raw = on_a_cluster(tmp_path / "digits")
    shutil.rmtree(tmp_path / "digits/stages/sft")
    raw["status"]["stages"][0] |= {"state": "Skipped", "attempts": []}
    api.put_run(raw)
    assert report()[0] == 0
    assert report("--from", tmp_path / "digits")[0] == 0


def test_a_folder_that_is_no_runs_is_refused_with_what_is_expected(api, tmp_path):
    api.put_run(on_a_cluster(tmp_path / "digits"))
    (tmp_path / "empty").mkdir()
    code, _, err = report("--from", tmp_path / "empty")
    assert code == 1 and "neither stages/ nor checkpoints/" in err and "MOUNT/digits" in err
