"""What the container shows on its port."""

import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest

from local_runs import wait_for
from object_storage import free_port
from pod_runs import PodRun, ask_to_stop
from prism_trainer.contract.report import PROGRESS, Progress
from prism_trainer.pod.board import Board
from prism_trainer.pod.progress_server import metrics_text, serving


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def shown(port):
    try:
        return Progress.model_validate_json(get(port, "/progress"))
    except (OSError, ValueError):
        return None


def test_progress_goes_through_the_supervisors_phases_to_the_trainers(tmp_path):
    pod, port = PodRun(tmp_path), free_port()
    process = pod.start(pod.write(behaviour={"steps": 900, "seconds": 0.05}), progress_port=port)
    seen = wait_for(lambda: (found := shown(port)) and found.step > 2 and found, seconds=60)
    assert (seen.phase, seen.total_steps, seen.resume_from) == ("training", 900, None)
    assert f'prism_trainer_step{{run="demo",stage="sft",attempt="1"}} {shown(port).step}'[:30] in get(port, "/metrics")
    assert get(port, "/healthz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(port, "/")
    ask_to_stop(process)


def test_the_second_stage_of_a_pod_takes_the_port_over(tmp_path):
    port = free_port()
    with serving(Board("second", 1), "demo", port):
        pass
    with serving(Board("first", 1), "demo", port):
        wait_for(lambda: shown(port))
        with serving(Board("second", 1), "demo", port):
            assert shown(port).stage == "first"
    with serving(Board("third", 1), "demo", port):
        assert wait_for(lambda: shown(port)).stage == "third"
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


def test_the_trainers_heartbeat_is_shown_with_where_it_went_on_from_and_stays_when_it_is_done(tmp_path):
    board = Board("sft", 2)
    board.follow(tmp_path, "/old")
    assert (board.progress().phase, board.progress().resume_from) == ("starting", "/old")
    time = "2026-01-01T00:00:00Z"
    beat = Progress(stage="sft", attempt=2, step=3, total_steps=9, metrics={"loss": 1.0}, advanced_at=time, updated_at=time)
    (tmp_path / PROGRESS).write_text(beat.model_dump_json())
    assert board.progress() == beat.model_copy(update={"resume_from": "/old"})
    (tmp_path / PROGRESS).write_text("{")
    assert board.progress().phase == "starting"
    (tmp_path / PROGRESS).write_text(beat.model_dump_json())
    board.phase("uploading")
    now = board.progress()
    assert (now.phase, now.step, now.resume_from) == ("uploading", 3, "/old") and now.advanced_at > time
    board.advance()
    assert board.progress().advanced_at >= now.advanced_at


def test_metrics_are_prometheus_text():
    time = "2026-01-01T00:00:00Z"
    progress = Progress(
        stage="sft", attempt=2, step=3, total_steps=12, metrics={"loss": 0.5, 'a"b\\': 1e-7}, advanced_at=time, updated_at=time
    )
    text = metrics_text(progress, "demo", datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC))
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    labels = 'run="demo",stage="sft",attempt="2"'
    assert samples == {
        f"prism_trainer_progress_ratio{{{labels}}}": "0.25",
        f"prism_trainer_step{{{labels}}}": "3",
        f"prism_trainer_heartbeat_age_seconds{{{labels}}}": "30.000",
        f'prism_trainer_metric{{{labels},name="loss"}}': "0.5",
        f'prism_trainer_metric{{{labels},name="a\\"b\\\\"}}': "1e-07",
    }
    assert text.count("# TYPE prism_trainer_metric gauge\n") == 1 and text.endswith("\n")


def test_metrics_parse_with_prometheus_own_parser():
    parser = pytest.importorskip("prometheus_client.parser")
    time = "2026-01-01T00:00:00Z"
    text = metrics_text(Progress(stage="sft", attempt=1, advanced_at=time, updated_at=time), "demo", datetime.now(UTC))
    assert {family.name for family in parser.text_string_to_metric_families(text)} == {
        *("prism_trainer_progress_ratio", "prism_trainer_step", "prism_trainer_heartbeat_age_seconds"),
    }
