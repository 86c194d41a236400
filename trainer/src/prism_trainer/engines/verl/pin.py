"""verl's version. What we override there is private and changes with each release, so it is exactly one."""

from __future__ import annotations

import importlib.metadata

from prism_trainer.errors import PrismError

VERL = "0.9.1"


def require_pinned_verl() -> None:
    try:
        found = importlib.metadata.version("verl")
    except importlib.metadata.PackageNotFoundError:
        raise PrismError(f"engine verl needs verl {VERL}, and this image has none; give the stage the image of role rl") from None
    if found != VERL:
        raise PrismError(
            f"this image has verl {found}, and engine verl is written for exactly {VERL}; give the image of the same prism version"
        )
