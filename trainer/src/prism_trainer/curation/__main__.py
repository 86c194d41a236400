"""`python -m prism_trainer.curation`, which `prism data` starts. Exit codes: 0 done, 1 a data set or model is at fault, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prism_trainer.contract.job import DataSource
from prism_trainer.data.formats import FORMATS
from prism_trainer.errors import PrismError

FORMS = "file (.json, .jsonl, .parquet), pattern with *, folder, s3:// address or Hugging Face id"


def main(arguments: Sequence[str]) -> int:
    parsed = parser().parse_args(arguments)
    try:
        return int(parsed.command(parsed))
    except PrismError as error:
        print(f"prism: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="prism data", description="Check, filter and make data sets.")
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    return found


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check",
        help="what sets hold, and every row that could not be used",
        description="Read every row as its stage would. Prints counts, lengths and image sizes, and each broken row with file, row and "
        "column. Exit code 1 if there is any.",
    )
    check.add_argument("sets", nargs="+", metavar="SET", help=FORMS)
    check.add_argument("--format", choices=FORMATS, help="what it must be; by default the first row's columns tell")
    check.add_argument("--model", metavar="DIR", help="also count tokens, with this model's tokenizer")
    check.add_argument("--errors", type=int, default=20, metavar="N", help="broken rows shown of each set (default: 20)")
    check.add_argument("--json", action="store_true", help="print one JSON object a set")
    check.set_defaults(command=_check)


def _check(parsed: argparse.Namespace) -> int:
    from prism_trainer.curation.check import check_set, lines

    count_tokens = _token_counter(parsed.model) if parsed.model else None
    broken = 0
    for uri in parsed.sets:
        findings = check_set(DataSource(uri=uri), parsed.format, parsed.errors, count_tokens)
        broken += findings.num_broken
        print(json.dumps(findings.summary(), ensure_ascii=False) if parsed.json else "\n".join(lines(findings)), flush=True)
    return 1 if broken else 0


def _token_counter(model: str) -> Callable[[str], int]:
    from prism_trainer.engines.local.models import load_processor, quiet_transformers

    quiet_transformers()
    tokenizer = load_processor(Path(model)).tokenizer
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
