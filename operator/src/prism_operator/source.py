"""A PrismRun's file: YAML text to plain values, and the line each path stands on. Knows nothing of the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from prism_operator.problems import Path, Problem


@dataclass(frozen=True)
class Source:
    """What stands in a file, and where."""

    raw: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line_of(self, path: Path) -> int | None:
        """Line of the path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: 1e-6 is one (YAML 1.1 takes it for text), and times stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def read_source(text: str) -> Source:
    """Parse; a text that is no YAML gives one problem, a key given twice one each."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        raw = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        return Source(problems=(Problem((), _yaml_sentence(error)),))
    finally:
        loader.dispose()
    if node is None or not isinstance(raw, dict):
        return Source(problems=(Problem((), "found no mapping; expected a PrismRun: apiVersion, kind, metadata, spec"),))
    lines: dict[Path, int] = {}
    twice = []
    for path, line in _walk(node, ()):
        if path in lines:
            twice.append(Problem(path, f"is given twice, on lines {lines[path]} and {line}; keep one"))
        lines[path] = line
    return Source(raw, lines, tuple(twice))


def _walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark.line + 1
            yield from _walk(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _walk(value, (*path, index))


def _yaml_sentence(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.composer.ComposerError) and "single document" in str(error):
        return "holds several YAML documents; give one PrismRun a file"
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"is not YAML: {where}{getattr(error, 'problem', None) or error}"
