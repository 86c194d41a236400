"""Which checkpoint folders of a stage are no longer needed.

Never a final one, never one of another configuration (a survey holds none), never one of a later attempt: if there is a later one, this
container is the one that should be gone.
"""

from __future__ import annotations

import logging

from prism_trainer.errors import PrismError
from prism_trainer.pod.survey import Survey
from prism_trainer.stores import Store

log = logging.getLogger(__name__)


def superseded(found: Survey, attempt: int, keep: int) -> list[str]:
    """While the stage is under way: what lies before the newest `keep`.

    Whatever this attempt committed counts as newer than all of earlier ones, for it did not go on from them if they are damaged. Until
    it has committed something, what it went on from is not touched.
    """
    own = [one.uri for one in found.intermediate if one.attempt == attempt]
    earlier = [one.uri for one in found.intermediate if one.attempt < attempt]
    return [*earlier, *own][:-keep] if own else []


def needless(found: Survey, attempt: int, keep: int) -> list[str]:
    """When the final checkpoint is committed: resumable ones but the newest `keep`, and what was never finished."""
    old = [one.uri for one in found.intermediate if one.attempt <= attempt]
    unfinished = [one.uri for one in found.unfinished if one.attempt <= attempt]
    return [*old[: len(old) - keep], *unfinished]


def remove_all(store: Store, uris: list[str]) -> None:
    """What cannot be removed takes room and does no other harm, so it is told and left."""
    for uri in uris:
        try:
            store.remove(uri)
            log.info("removed '%s', which is no longer needed", uri)
        except PrismError as error:
            log.warning("'%s' is no longer needed and cannot be removed: %s", uri, error)
