"""The judge against a real server: what it is told, what becomes of its replies, and of a server that is slow, busy, broken or gone."""

import json

import pytest

from judge_server import JudgeServer, says, slowly
from prism_trainer.contract.configs import JUDGE_KEY
from prism_trainer.contract.configs import Judge as JudgeConfig
from prism_trainer.contract.report import FailureClass
from prism_trainer.errors import PrismError, Stopped, UnreachableError
from prism_trainer.evaluation import judge as judge_module
from prism_trainer.evaluation.judge import TRIES, Case, Judge, read_verdict
from prism_trainer.evaluation.verdicts import VerdictStore

HALF = Case("What part is red?", "1/2", "one half")
NO_STOP = lambda: False  # noqa: E731


@pytest.fixture
def ask(tmp_path):
    """Verdicts of a judge with a short temper, on cases."""

    def ask(server, *cases, stop=NO_STOP, folder=tmp_path, **fields):
        url = server if isinstance(server, str) else server.url
        config = JudgeConfig(**{"model": "qwen", "base_url": url, "timeout_seconds": 5.0, **fields})
        with Judge(config, folder, stop, first_wait=0.01) as judge:
            return judge.verdicts(cases or (HALF,))

    return ask


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("right", "right"),
        ("Right.", "right"),
        ("**Wrong**", "wrong"),
        ("<think>It could be wrong, but one half is 1/2.</think>\n\nright", "right"),
        ("It is right, not wrong", "unclear"),
        ("I cannot see the image.", "unclear"),
        ("bright and upright", "unclear"),
        ("", "unclear"),
        ("<think>right", "right"),
    ],
)
def test_a_verdict_is_the_one_word_a_reply_says(reply, verdict):
    assert read_verdict(reply) == verdict


def test_the_judge_is_told_the_question_the_reference_and_the_answer(ask):
    with JudgeServer(says("right")) as server:
        assert ask(server) == ["right"]
    assert server.asked == [{"question": "What part is red?", "reference answer": "1/2", "answer to grade": "one half"}]
    assert (server.bodies[0]["model"], server.bodies[0]["temperature"]) == ("qwen", 0)


def test_verdicts_come_in_the_order_of_the_cases_and_equal_cases_are_asked_once(ask):
    with JudgeServer(lambda case: "right" if case["answer to grade"] in "acegi" else "wrong") as server:
        cases = [Case("q", "r", letter) for letter in "abcdefghij" * 2]
        assert ask(server, *cases) == ["right", "wrong"] * 10
    assert len(server.asked) == 10


def test_several_questions_are_under_way_at_once_and_no_more_than_allowed(ask):
    with JudgeServer(slowly(0.1, "right")) as server:
        ask(server, *(Case("q", "r", str(number)) for number in range(12)), concurrency=4)
    assert 2 <= server.most_at_once <= 4


def test_nothing_is_asked_twice_however_often_the_evaluation_is_repeated(ask):
    with JudgeServer(says("wrong")) as server:
        assert [ask(server), ask(server), ask(server, timeout_seconds=1.0)] == [["wrong"]] * 3
        assert len(server.asked) == 1
        ask(server, model="another judge")
        ask(server, Case(HALF.question, HALF.reference, "0.5"))
        assert len(server.asked) == 3


def test_half_a_line_in_the_file_of_verdicts_is_asked_again_and_harms_no_other(ask, tmp_path):
    with JudgeServer(says("right")) as server:
        ask(server)
        file = tmp_path / "verdicts.jsonl"
        file.write_text(file.read_text() + '{"asked": "sha256:12')
        ask(server, Case("q", "r", "x"))
        assert ask(server, HALF, Case("q", "r", "x")) == ["right", "right"]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "nonsense",
    [b"<html>gateway</html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"\xff\xfe", "who knows"],
)
def test_a_nonsense_reply_is_unclear_and_asked_once(ask, nonsense):
    with JudgeServer(says(nonsense)) as server:
        assert ask(server) == ask(server) == ["unclear"]
    assert len(server.asked) == 1


@pytest.mark.parametrize("trouble", [429, 500, 503, 408, (429, {"retry-after": "0"}), (503, {"retry-after": "soon"}), None])
def test_a_server_that_is_busy_or_broken_for_a_while_is_asked_again(ask, trouble):
    with JudgeServer(says(trouble), says(trouble), says("right")) as server:
        assert ask(server) == ["right"]
    assert len(server.asked) == 3


def test_a_server_that_says_when_it_will_have_time_is_left_alone_until_then(ask, monkeypatch):
    slept = []
    monkeypatch.setattr(Judge, "_wait", lambda _, seconds: slept.append(seconds))
    with JudgeServer(says((429, {"retry-after": "7"})), says((429, {"retry-after": "7200"})), says(503), says("right")) as server:
        assert ask(server) == ["right"]
    assert slept == [7.0, judge_module.LONGEST_WAIT, pytest.approx(0.04)]


def test_a_reply_that_does_not_come_in_time_is_asked_for_again(ask):
    with JudgeServer(slowly(1.0, "wrong"), says("right")) as server:
        assert ask(server, timeout_seconds=0.2) == ["right"]


@pytest.mark.parametrize("trouble", [500, 429, None])
def test_a_server_that_stays_away_ends_the_stage_as_something_to_be_tried_again(ask, trouble, tmp_path):
    with (
        JudgeServer(says(trouble)) as server,
        pytest.raises(UnreachableError, match=rf"judge 'qwen' at {server.url} did not answer {TRIES}"),
    ):
        ask(server)
    assert UnreachableError.failure_class is FailureClass.CONTROL_PLANE
    assert len(server.asked) == TRIES and not (tmp_path / "verdicts.jsonl").exists()


def test_a_server_that_is_not_there_is_a_sentence(ask):
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9/v1 did not answer .*ConnectError.*or leave config\.judge out"):
        ask("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(("status", "sentence"), [(401, f"environment variable {JUDGE_KEY} is not set"), (404, "correct config.judge")])
def test_a_refusal_is_final_and_says_what_to_do_without_the_servers_words(ask, status, sentence):
    with JudgeServer(says(status)) as server, pytest.raises(PrismError, match=f"as 'qwen' .HTTP {status}.*{sentence}") as caught:
        ask(server)
    assert caught.value.failure_class is FailureClass.USER_ERROR
    assert len(server.asked) == 1 and "sk-" not in str(caught.value)


@pytest.mark.parametrize("name", [JUDGE_KEY, "MY_JUDGE"])
def test_the_key_comes_from_the_environment_and_goes_to_the_server_only(ask, name, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv(name, "sk-very-secret")
    with JudgeServer(says("right"), says(401)) as server:
        ask(server, api_key_env=name)
        with pytest.raises(PrismError, match=f"{name} was not accepted") as caught:
            ask(server, Case("q", "r", "another"), api_key_env=name)
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    told = [json.dumps(server.bodies), str(caught.value), caplog.text, *(file.read_text() for file in tmp_path.iterdir())]
    assert not any("sk-very-secret" in text for text in told)


def test_a_key_that_was_named_and_is_not_there_is_told_before_anything_is_drawn(ask):
    with pytest.raises(PrismError, match="apiKeyEnv names environment variable MY_JUDGE, which is not set"):
        ask("http://127.0.0.1:9/v1", api_key_env="MY_JUDGE")


def test_a_server_that_asks_for_no_key_gets_none(ask):
    with JudgeServer(says("right")) as server:
        ask(server)
    assert "authorization" not in server.headers[0]


def test_waiting_for_a_judge_ends_when_the_stage_is_asked_to_stop(ask):
    with JudgeServer(says((503, {"retry-after": "60"}))) as server, pytest.raises(Stopped):
        ask(server, stop=lambda: len(server.asked) > 0)


def test_one_question_without_an_answer_ends_the_waiting_of_all(ask, tmp_path):
    answer = lambda case: 404 if case["answer to grade"] == "bad" else (503, {"retry-after": "60"})  # noqa: E731
    with JudgeServer(answer) as server, pytest.raises(PrismError, match="HTTP 404"):
        ask(server, Case("q", "r", "bad"), *(Case("q", "r", str(number)) for number in range(4)))


def test_two_runs_may_share_a_file_of_verdicts(tmp_path):
    one, other = VerdictStore(tmp_path), VerdictStore(tmp_path)
    one.add("a", "right")
    other.add("b", "wrong")
    read = VerdictStore(tmp_path)
    assert (read["a"], read["b"]) == ("right", "wrong") and "c" not in read
