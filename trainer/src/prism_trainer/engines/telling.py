"""What a step of alignment tells, whichever engine took it: metrics of the responses, and a record of each."""

from __future__ import annotations

from collections.abc import Sequence

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.adversary import AdversaryResult
from prism_trainer.errors import DataError
from prism_trainer.responses import ParsedResponse, count_caption_items, count_think_steps


def require_gradable(rows: Sequence[TaughtPrompt], config: AlignmentConfig) -> None:
    """A mode with a verifiable reward needs something to verify with."""
    if config.reward_mode == "default":
        return
    without = [row.prompt.id for row in rows if not row.references]
    if without:
        raise DataError(
            f"prompt {without[0]} has no ground_truth, and rewardMode '{config.reward_mode}' grades answers; "
            f"add one to this and {len(without) - 1} more rows, or use rewardMode 'default'"
        )


def response_metrics(lengths: Sequence[int], parsed: Sequence[ParsedResponse | None], correct: Sequence[bool] | None) -> dict[str, float]:
    """What the responses look like; `lengths` are in tokens."""
    valid = [one for one in parsed if one]
    metrics = {
        "reward/format_valid_ratio": len(valid) / len(parsed),
        "response_length/mean": sum(lengths) / len(lengths),
        "structure/caption_items": sum(map(count_caption_items, valid)) / max(1, len(valid)),
        "structure/think_steps": sum(map(count_think_steps, valid)) / max(1, len(valid)),
    }
    return metrics if correct is None else {**metrics, "reward/acc_reward/mean": sum(correct) / len(correct)}


def sample_records(
    batch: Sequence[TaughtPrompt],
    texts: Sequence[str],
    lengths: Sequence[int],
    adversary: AdversaryResult,
    advantages: Sequence[float],
    correct: Sequence[bool] | None,
) -> list[dict[str, object]]:
    """One record a response with both of its scores (upstream dumps only their sum, defect A12). Responses lie prompt by prompt."""
    columns = zip(
        texts, lengths, adversary.caption_PN.flatten().tolist(), adversary.cot_PN.flatten().tolist(),
        adversary.valid_PN.flatten().tolist(), advantages, [None] * len(texts) if correct is None else correct, strict=True,
    )  # fmt: skip
    size = len(texts) // len(batch)
    return [
        {
            "prompt_id": batch[place // size].prompt.id,
            "question": batch[place // size].prompt.question,
            "response": text,
            "num_tokens": length,
            "format_valid": valid,
            "correct": right,
            "caption_score": caption if valid else None,
            "cot_score": cot if valid else None,
            "advantage": advantage,
            "teacher": batch[place // size].teacher.text,
        }
        for place, (text, length, caption, cot, valid, advantage, right) in enumerate(columns)
    ]
