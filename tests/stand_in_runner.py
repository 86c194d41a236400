"""`prism run` with the stand-in stage: `python stand_in_runner.py FILE BEHAVIOUR [--redo]`, for tests that kill it."""

import sys
from pathlib import Path

from prism_operator.errors import PrismError
from prism_operator.local.machine import Machine
from prism_operator.local.runner import Ended, run_locally
from prism_operator.validate import validate_file

STAND_IN = Path(__file__).with_name("stand_in_stage.py")


def run_stand_in(file: Path, behaviour: Path, redo: bool = False, num_gpus: int = 0) -> Ended:
    """In this process. Relative paths start at the file's folder, so that tests need not change directory."""
    machine = Machine(cwd=file.parent, num_gpus=lambda: num_gpus)
    validated = validate_file(file, machine)
    assert not validated.problems, validated.lines()
    run_dir = file.parent / validated.run.spec.storage.local.path
    command = (sys.executable, str(STAND_IN), str(behaviour))
    return run_locally(validated.raw, validated.text, run_dir, machine, redo=redo, command=command)


def main() -> int:
    try:
        ended = run_stand_in(Path(sys.argv[1]), Path(sys.argv[2]), redo="--redo" in sys.argv)
    except PrismError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(ended.status.message)
    return ended.exit_code


if __name__ == "__main__":
    sys.exit(main())
