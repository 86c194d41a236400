"""What is wrong with a PrismRun: a path in the file and a sentence. Nothing here knows pydantic, YAML or the planner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing to correct."""

    path: Path
    sentence: str

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.sentence}" if self.path else self.sentence


def format_path(path: Path) -> str:
    """`spec.stages[2].config.rollout.groupSize`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse_path(text: str) -> Path:
    """The other way, for the dotted paths the contract names options by."""
    return tuple(text.split("."))


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """`; did you mean 'groupSize'?`, or all there is to choose from where nothing is close."""
    choices = list(known)
    folded = {choice.lower().replace("_", ""): choice for choice in choices}
    close = get_close_matches(found.lower().replace("_", ""), folded, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{folded[close[0]]}'?"
    return f"; known: {', '.join(choices)}" if choices else ""
