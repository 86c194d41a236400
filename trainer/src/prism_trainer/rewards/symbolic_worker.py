"""A process that compares two formulas at a time with math-verify, and lives through those that never end.

Run as `python -m prism_trainer.rewards.symbolic_worker` by `symbolic.py`. It loads sympy once and forks; the fork answers
requests until one takes too long and the alarm kills it, which no formula can prevent, then the next fork goes on at once. Requests come
on standard input, each a length of four bytes and JSON; each is answered by one byte on standard output.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
from collections.abc import Callable

READY, MISSING, SAME, DIFFERENT, CUT, FAILED = (bytes([code]) for code in b"rmsdcf")
MAX_MEMORY_BYTES = 3 * 2**30
Compare = Callable[[str, str], bool]


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # the libraries may print; standard output carries answers only
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()
    try:
        compare = load_math_verify()
    except ImportError:
        os.write(replies, MISSING)
        return
    os.write(replies, READY)
    while True:
        child = os.fork()
        if child == 0:
            _serve(compare, replies)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return
        os.write(replies, CUT)


def load_math_verify() -> Compare:
    """Whether math-verify proves two formulas equal, without its own time limits: they need the main thread's alarm."""
    library = importlib.import_module("math_verify")
    normal = importlib.import_module("latex2sympy2_extended").NormalizationConfig
    kept = normal(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    reading = [library.LatexExtractionConfig(normalization_config=kept)]

    def compare(left: str, right: str) -> bool:
        parsed = [library.parse(f"${one}$", reading, "no_fallback", parsing_timeout=None) for one in (left, right)]
        if not all(parsed):
            return False
        if library.verify(*parsed, timeout_seconds=None):
            return True
        # math-verify takes an interval for an inequality, and a value for an equation, only one way round
        kinds = {type(one[0]) for one in parsed}
        return len(kinds) > 1 and bool(library.verify(*parsed[::-1], timeout_seconds=None))

    compare("(x+1)(x-1)", "x^2-1")  # fills the caches that every fork starts with
    return compare


def _serve(compare: Compare, replies: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while header := os.read(0, 4):
        request = json.loads(os.read(0, int.from_bytes(header, "big")))
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            reply = SAME if compare(request["left"], request["right"]) else DIFFERENT
        except MemoryError:
            reply = CUT
        except Exception:
            reply = FAILED
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, reply)


if __name__ == "__main__":
    main()
