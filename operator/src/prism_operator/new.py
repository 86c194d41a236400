"""`prism new`: a commented PrismRun to start from. The templates hold the values and the reasons; this module only picks one."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from prism_operator.api import Metadata
from prism_operator.errors import PrismError

TEMPLATES = {"tiny": "prismrun-tiny.yaml.j2", "4b": "prismrun-paper.yaml.j2", "8b": "prismrun-paper.yaml.j2"}
"""tiny: the digits example, engine local. 4b and 8b: the paper's values on 8 H100, engine verl."""
ALGORITHMS = ("grpo", "dapo", "gspo")
EXECUTORS = ("local", "cluster")
ROOTS = {"local": "runs/digits", "cluster": "digits"}
"""Where the digits example's model and data lie: below the current directory, or in the volume."""


class UnknownChoiceError(PrismError, ValueError):
    """Asked for what there is no template for."""

    exit_code = 2


def executor_of(size: str, on_cluster: bool) -> str:
    """Where nobody said: the paper's sizes are for a cluster, and kubectl's user has one."""
    return "cluster" if on_cluster or size in ("4b", "8b") else "local"


def write_prismrun(path: Path | None, size: str, algorithm: str, name: str, executor: str | None = None) -> str:
    """The text, which is also written to `path` where there is one."""
    executor = executor or executor_of(size, False)
    _require("size", size, tuple(TEMPLATES))
    _require("--for", executor, EXECUTORS)
    _require("algorithm", algorithm, ALGORITHMS)
    _require_name(name)
    if executor == "local" and executor_of(size, False) != "local":
        raise UnknownChoiceError(f"size {size} takes the GPUs of a cluster, and --for is 'local'; use --for cluster, or size tiny")
    text = (
        _environment()
        .get_template(TEMPLATES[size])
        .render(
            name=_as_yaml(name),
            folder=name,
            size=size,
            algorithm=algorithm,
            executor=executor,
            root=ROOTS[executor],
        )
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return text


def _require(what: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise UnknownChoiceError(f"{what} is '{found}'; expected {', '.join(known[:-1])} or {known[-1]}")


def _require_name(name: str) -> None:
    try:
        Metadata(name=name)
    except ValidationError as error:
        raise UnknownChoiceError(
            f"name is '{name}'; expected at most 36 lower-case letters, digits and dashes, with a letter or digit at both ends"
        ) from error


def _as_yaml(name: str) -> str:
    """`123` and `true` are good names, and YAML reads them as something else unless they are quoted."""
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _environment() -> Environment:
    """No escaping: the result is YAML, and the only text from outside is the name, which was checked."""
    return Environment(
        loader=PackageLoader("prism_operator"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
