"""What the libraries are told through the environment, before they are imported."""

from __future__ import annotations

import os


def quiet_libraries() -> None:
    """No network, no progress bars.

    OpenMP threads spin only shortly before they sleep: by default two spinning teams on the same cores slow each other several times
    over, and alone a short spin is as fast.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
