"""kopf's memory of objects, turned off: it is for handlers of changes, of which we have none.

Before every event kopf copies the whole object, three times and deeply, to compare it with what it stored: seven tenths of the operator's
processor time, for a comparison nobody reads.
"""

from __future__ import annotations

from typing import Any

import kopf


class NoDiffs(kopf.DiffBaseStorage):
    """No object has an essence, so none ever changes."""

    def build(self, **_: Any) -> Any:
        """Nothing."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was handled before."""

    def store(self, **_: Any) -> None:
        """Nowhere."""


class NoProgress(kopf.ProgressStorage):
    """No handler of ours is ever half done."""

    def fetch(self, **_: Any) -> None:
        """None was."""

    def store(self, **_: Any) -> None:
        """Nowhere."""

    def purge(self, **_: Any) -> None:
        """Nothing is there."""

    def touch(self, **_: Any) -> None:
        """Nothing is there."""

    def clear(self, *, essence: Any) -> Any:
        """As it is: a copy is only for those who write to it."""
        return essence
