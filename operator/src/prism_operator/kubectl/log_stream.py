"""The log of one container, each line once, however often the connection breaks."""

from __future__ import annotations

from collections.abc import Iterator

from prism_operator.kubectl.door import Door
from prism_operator.kubectl.refusals import UnreachableError
from prism_operator.timestamps import format_time, parse_time


class LogStream:
    """Reads on where it was: lines come with the node's timestamps, which are cut off again."""

    def __init__(self, door: Door, pod: str, container: str) -> None:
        self._door, self._container = door, container
        self._path = f"/api/v1/namespaces/{door.namespace}/pods/{pod}/log"
        self._last = ""

    def read(self, follow: bool) -> Iterator[str]:
        """What is there; followed, until the container ends or the connection does."""
        query = {"container": self._container, "timestamps": "true", "follow": str(follow).lower()}
        since = parse_time(self._last)
        if since is not None:
            query["sinceTime"] = format_time(since)
        before = self._last
        try:
            for line in _lines(self._door.stream(self._path, **query)):
                time, _, text = line.partition(" ")
                if time > before:
                    self._last = time
                    yield text
        except UnreachableError:
            if not follow:
                raise


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """With their ends; the last one may have none."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (f"{line.decode(errors='replace')}\n" for line in whole)
    if rest:
        yield rest.decode(errors="replace")
