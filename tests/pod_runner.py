"""`python -m prism_trainer.pod` with other places: `python pod_runner.py PLACES JOB`, for tests that send signals."""

import json
import sys
from pathlib import Path

from prism_trainer.pod.__main__ import main
from prism_trainer.pod.places import Places

given = json.loads(sys.argv[1])
paths = {name: Path(given[name]) for name in ("work_dir", "termination_log", "cgroup_dir")}
commands = {name: tuple(given[name]) for name in ("trainer", "ray_nodes", "hub", "preflight", "ray_watch") if given.get(name) is not None}
sys.exit(main(sys.argv[2:], Places(**{**given, **paths, **commands})))
