"""What the API server wrote down of our operator's requests."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

WRITES = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Audit:
    """The log's file, read from a place in it."""

    file: Path

    def mark(self) -> int:
        """The end of the log by now."""
        return self.file.stat().st_size if self.file.exists() else 0

    def since(self, mark: int) -> Counter[tuple[str, str]]:
        """Requests by verb and resource (`prismruns/status`), watches left out: they end when they end."""
        found: Counter[tuple[str, str]] = Counter()
        with self.file.open("rb") as log:
            log.seek(mark)
            for line in log:
                event = json.loads(line)
                ref = event.get("objectRef") or {}
                resource = "/".join(part for part in (ref.get("resource", event["requestURI"]), ref.get("subresource")) if part)
                if event["verb"] != "watch":
                    found[event["verb"], resource] += 1
        return found


def num_writes(requests: Counter[tuple[str, str]]) -> int:
    """Of these requests."""
    return sum(count for (verb, _), count in requests.items() if verb in WRITES)


def told(requests: Counter[tuple[str, str]]) -> str:
    """For people."""
    return ", ".join(f"{count} {verb} {resource}" for (verb, resource), count in sorted(requests.items())) or "none"
