"""The same tokens, drawn by whichever engine: the same rewards, and the same advantage for each response."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from prism_trainer.contract.configs import AlignmentConfig, RlvrConfig
from prism_trainer.data.rows import Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.engines.adversary import judge
from prism_trainer.engines.local.drawing import score_responses
from prism_trainer.engines.local.encoding import pad_right
from prism_trainer.engines.local.groups import Groups
from prism_trainer.engines.local.models import load_processor
from prism_trainer.engines.local.rollout import Responses, decode_responses, parse_complete
from prism_trainer.engines.reading import Marks
from prism_trainer.engines.verl.alignment_trainer import AlignmentTrainer
from prism_trainer.engines.verl.responses import Answered
from prism_trainer.engines.verl.rollout_worker import RolloutWorker
from prism_trainer.engines.verl.trainer import PrismTrainer
from prism_trainer.responses import parse_response
from prism_trainer.stages.alignment import advantages_of, grade_responses

ROLLOUT = {"group_size": 4, "max_response_tokens": 24}
PENALISED = {"overlong_buffer_tokens": 12, "overlong_penalty": 0.7}
ALGORITHMS = {
    "grpo": {"algorithm": {"name": "grpo"}},
    "dapo": {"algorithm": {"name": "dapo", **PENALISED}},
    "gspo": {"algorithm": {"name": "gspo"}},
    "other weights": {"algorithm": {"name": "grpo"}, "accuracy_weight": 0.5, "format_weight": 0.1},
}
MODES = ["default", "acc-gating", "gated", "rlvr", "rlvr-v2", "sign-align"]


def answer(text, words=1):
    return f"<caption>\n{'a ' * words}\n</caption>\n<think>\nb\n</think>\n<answer>\n{text}\n</answer>"


TEXTS = [
    [answer("1"), answer("1", 12), answer("2"), answer("3", 25)],
    [answer("2"), "no format at all", answer("1"), answer("2")],
    [answer("3"), answer("3"), answer("3"), answer("3", 20)],
]
REFERENCES = ("1", "2", "3")
CUT = (1, 3)
"""The one response that the length limit cut: right, in the right format, and without an end."""


def taught(row):
    return TaughtPrompt(row.prompt, parse_response(answer("1")), row.references)


@pytest.fixture(scope="module")
def tokenizer(base_dir):
    return load_processor(base_dir).tokenizer


@pytest.fixture(scope="module")
def drawn(tokenizer):
    """Token ids of each response, prompt by prompt."""
    return [
        [
            tokenizer.encode(text, add_special_tokens=False) + [tokenizer.eos_token_id] * ((group, number) != CUT)
            for number, text in enumerate(texts)
        ]
        for group, texts in enumerate(TEXTS)
    ]


ROWS = [VerifiablePrompt(Prompt(f"p:{number}", "q", ()), (reference,)) for number, reference in enumerate(REFERENCES)]


def by_engine_local(tokenizer, drawn, rows, config):
    """Groups, and the parsed responses; as `engines.local.drawing` has them."""
    token_ids = [ids for group in drawn for ids in group]
    padded, mask = pad_right(token_ids, tokenizer.pad_token_id)
    ended = torch.tensor([ids[-1] == tokenizer.eos_token_id for ids in token_ids])
    responses = Responses(padded, mask, torch.arange(len(token_ids)) // 4, ended)
    texts = decode_responses(tokenizer, responses)
    parsed = parse_complete(responses, texts)
    scored = score_responses(rows, responses, parsed, config) if isinstance(config, RlvrConfig) else []
    return Groups(rows, responses, texts, scored), parsed


def by_engine_verl(tokenizer, drawn, rows, config):
    """The step's draw, as the rollout workers tell it."""
    worker = SimpleNamespace(tokenizer=tokenizer, _job=SimpleNamespace(config=config))
    groups = [
        Answered("", row, [], [], [RolloutWorker._judge(worker, SimpleNamespace(row=row), ids) for ids in group])
        for row, group in zip(rows, drawn, strict=True)
    ]
    return SimpleNamespace(stage=config, draw=SimpleNamespace(groups=groups))


@pytest.mark.parametrize("fields", ALGORITHMS.values(), ids=ALGORITHMS)
def test_of_rlvr(tokenizer, drawn, fields):
    config = RlvrConfig(rollout=ROLLOUT, **fields)
    rewards, advantages = by_engine_local(tokenizer, drawn, ROWS, config)[0].rewards_and_advantages(config)
    trainer = by_engine_verl(tokenizer, drawn, ROWS, config)
    found = PrismTrainer.compute_advantages(trainer)
    assert torch.equal(trainer.rewards_PN, rewards) and torch.equal(found, advantages)
    assert len(set(advantages[0].tolist())) > 1 and rewards[CUT].item() == pytest.approx(
        -0.7 * _ramp(drawn, CUT) if config.algorithm.name == "dapo" else 0
    )


def _ramp(drawn, place):
    """How far up it a response is."""
    share = (len(drawn[place[0]][place[1]]) - 12) / 12
    assert 0 < share < 1
    return share


@pytest.mark.parametrize("mode", MODES)
def test_of_alignment(tokenizer, drawn, mode):
    config = AlignmentConfig(rollout=ROLLOUT, reward_mode=mode)
    rows = [taught(row) for row in ROWS]
    groups, parsed = by_engine_local(tokenizer, drawn, rows, config)
    trainer = by_engine_verl(tokenizer, drawn, rows, config)
    trainer.readable = list
    trainer.parsed = [
        one for place, answered in enumerate(trainer.draw.groups) for one in AlignmentTrainer.to_judge(trainer, place, answered).parsed
    ]
    assert trainer.parsed == parsed and parsed[4 * CUT[0] + CUT[1]] is None
    students = {place: (place % 5 - 2.0, 1.5 - place % 3) for place, one in enumerate(parsed) if one is not None}
    marks = Marks(dict.fromkeys(range(len(rows)), (1.0, 2.0)), students, 0.0)
    adversary = judge([marks], [one is not None for one in parsed], config)
    expected = advantages_of(config, adversary, grade_responses(rows, groups.responses, parsed))
    trainer.adversary, trainer.responses = adversary, AlignmentTrainer.responses.fget(trainer)
    trainer.correct = AlignmentTrainer.correct.fget(trainer)
    assert torch.equal(AlignmentTrainer.compute_advantages(trainer).flatten(), expected) and expected.std() > 0
