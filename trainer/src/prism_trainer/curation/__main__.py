"""`python -m prism_trainer.curation`, which `prism data` starts. Exit codes: 0 done, 1 a data set or model is at fault, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from prism_trainer.contract.job import PRISM_SYSTEM_PROMPT, DataSource
from prism_trainer.contract.optim import Sampling
from prism_trainer.curation.telling import Progress
from prism_trainer.data.formats import FORMATS
from prism_trainer.errors import DataError, PrismError
from prism_trainer.library_settings import quiet_libraries
from prism_trainer.remote_data import bring_data

if TYPE_CHECKING:
    from prism_trainer.curation.sampler import Drawing

FORMS = "file (.json, .jsonl, .parquet), pattern with *, folder, s3:// address, hf://datasets/ORG/NAME[@REVISION][/PATH] or ORG/NAME"


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
    _add_filter(commands)
    _add_pairs(commands)
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


def _add_filter(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    found = commands.add_parser(
        "filter",
        help="the subset for rlvr: prompts that a policy answers neither always nor never",
        description="Sample a policy on every row of sets with answers, and write the rows whose pass rate lies between --low and --high "
        "(stage-3 columns and `pass_rate`). Interrupted, the same command goes on where it was. Samples are kept beside the output: with "
        "other bounds and the output removed, nothing is sampled again.",
    )
    found.add_argument("--policy", required=True, type=Path, metavar="DIR", help="a checkpoint, or a Hugging Face directory")
    found.add_argument("--low", type=float, default=0.2, help="smallest pass rate kept (default: 0.2)")
    found.add_argument("--high", type=float, default=0.8, help="largest pass rate kept (default: 0.8)")
    _add_sampling(found, "OUT.parquet", samples=16)
    found.set_defaults(command=_filter)


def _add_pairs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    found = commands.add_parser(
        "pairs",
        help="warm-up pairs for the discriminator: a teacher's responses beside a student's",
        description="Sample a student on every row of sets with a teacher's responses, and write a line for each response in the right "
        "format (.jsonl, images beside it). Interrupted, the same command goes on where it was.",
    )
    found.add_argument("--student", required=True, type=Path, metavar="DIR", help="a checkpoint, or a Hugging Face directory")
    _add_sampling(found, "OUT.jsonl", samples=1)
    found.set_defaults(command=_pairs)


def _add_sampling(found: argparse.ArgumentParser, out: str, samples: int) -> None:
    found.add_argument("sets", nargs="+", metavar="SET", help=FORMS)
    found.add_argument("--out", required=True, type=Path, metavar=out, help="file to write")
    found.add_argument("--samples", type=int, default=samples, metavar="N", help=f"responses to each prompt (default: {samples})")
    found.add_argument("--temperature", type=float, default=1.0, help="(default: 1.0)")
    found.add_argument("--top-p", type=float, default=1.0, help="(default: 1.0)")
    found.add_argument("--max-response-tokens", type=int, default=8192, metavar="N", help="a longer one counts as wrong (default: 8192)")
    found.add_argument("--seed", type=int, default=0, help="(default: 0)")
    found.add_argument("--at-once", type=int, default=256, metavar="N", help="responses drawn at once; lower it for memory (default: 256)")
    found.add_argument("--system-prompt", default=PRISM_SYSTEM_PROMPT, metavar="TEXT", help="for rows without one (default: PRISM's)")
    found.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")


def _filter(parsed: argparse.Namespace) -> int:
    drawing, sources = _prepared(parsed, ".parquet")
    from prism_trainer.curation.difficulty import filter_by_pass_rate

    kept = filter_by_pass_rate(sources, parsed.policy, parsed.out, drawing, (parsed.low, parsed.high), parsed.device, Progress("filter"))
    print(f"{parsed.out}: {kept:,} rows")
    return 0


def _pairs(parsed: argparse.Namespace) -> int:
    drawing, sources = _prepared(parsed, ".jsonl")
    from prism_trainer.curation.student_pairs import sample_pairs

    pairs = sample_pairs(sources, parsed.student, parsed.out, drawing, parsed.device, Progress("pairs"))
    print(f"{parsed.out}: {pairs:,} pairs, two comparisons each")
    return 0


def _prepared(parsed: argparse.Namespace, suffix: str) -> tuple[Drawing, list[DataSource]]:
    if parsed.out.suffix != suffix:
        raise DataError(f"--out is '{parsed.out}', expected a name that ends in {suffix}; rename it")
    if parsed.out.exists():
        raise DataError(f"'{parsed.out}' exists; give another --out, or remove it")
    sources = _sources(parsed.sets)
    quiet_libraries()
    from prism_trainer.curation.sampler import Drawing
    from prism_trainer.engines.local.models import quiet_transformers

    quiet_transformers()
    try:
        sampling = Sampling(temperature=parsed.temperature, top_p=parsed.top_p, max_response_tokens=parsed.max_response_tokens)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error
    return Drawing(max(1, parsed.samples), parsed.at_once, sampling, parsed.seed, parsed.system_prompt), sources


def _check(parsed: argparse.Namespace) -> int:
    from prism_trainer.curation.check import check_set, lines

    sources = _sources(parsed.sets)
    count_tokens = _token_counter(parsed.model) if parsed.model else None
    broken = 0
    for source in sources:
        findings = check_set(source, parsed.format, parsed.errors, count_tokens)
        broken += findings.num_broken
        print(json.dumps(findings.summary(), ensure_ascii=False) if parsed.json else "\n".join(lines(findings)), flush=True)
    return 1 if broken else 0


def _sources(uris: Sequence[str]) -> list[DataSource]:
    return list(bring_data([DataSource(uri=uri) for uri in uris]))


def _token_counter(model: str) -> Callable[[str], int]:
    quiet_libraries()
    from prism_trainer.engines.local.models import load_processor, quiet_transformers

    quiet_transformers()
    tokenizer = load_processor(Path(model)).tokenizer
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
