"""Addresses of data sets that are no paths."""

from __future__ import annotations

import re
from dataclasses import dataclass

HUB = "hf://datasets/"
"""As every library of the hub spells it: hf://datasets/ORG/NAME[@REVISION][/PATH]."""
_WORD = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"(?P<id>{_WORD}/{_WORD})(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+?))?/?")
_ID = re.compile(rf"{_WORD}/{_WORD}(?<!\.json)(?<!\.jsonl)(?<!\.parquet)")


@dataclass(frozen=True)
class HubSet:
    """A data set on the Hugging Face hub: all of it, or the file, pattern or folder at `path`."""

    id: str
    revision: str | None = None
    path: str | None = None

    @property
    def uri(self) -> str:
        return HUB + self.id + (f"@{self.revision}" if self.revision else "") + (f"/{self.path}" if self.path else "")


def hub_set(uri: str) -> HubSet | None:
    """What `uri` names on the hub; None for any other address.

    Two words and no file's ending, `prism-vlm/gemini_distill`, are an id and never a folder: that is written `./prism-vlm/gemini_distill`.
    """
    if uri.startswith(HUB):
        found = _ADDRESS.fullmatch(uri.removeprefix(HUB))
        return HubSet(found["id"], found["revision"], found["path"]) if found else None
    return HubSet(uri) if _ID.fullmatch(uri) else None
