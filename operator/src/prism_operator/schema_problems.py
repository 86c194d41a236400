"""pydantic's errors as sentences for the person who wrote the file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from prism_operator.api import PrismRun
from prism_operator.problems import Path, Problem, did_you_mean


def problem_of(error: ErrorDetails, raw: Any) -> Problem:
    """One error; `raw` is the whole object, which tells pydantic's union tags from keys of the file."""
    path = _path_in_file(error["loc"], raw)
    return Problem(path, _sentence(error, path))


def follows(error: ErrorDetails) -> bool:
    """Whether an error only follows from others: a list is too short because its items are wrong."""
    return error["type"] == "too_short" and bool(error.get("input"))


def _path_in_file(location: tuple[int | str, ...], raw: Any) -> Path:
    """pydantic puts the chosen kind of a stage or algorithm into the location; the file has no such key."""
    path: list[str | int] = []
    here = raw
    for part in location:
        if isinstance(here, dict) and part not in here and part in (here.get("kind"), here.get("name")):
            continue
        path.append(part)
        here = _item(here, part)
    return tuple(path)


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _sentence(error: ErrorDetails, path: Path) -> str:
    context = error.get("ctx") or {}
    found = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key '{path[-1]}'{did_you_mean(str(path[-1]), _known_keys(error['loc'][:-1]))}"
        case "missing":
            return "is required, and missing"
        case "value_error":
            return str(context["error"])
        case "union_tag_not_found":
            return f"{context['discriminator'].strip(chr(39))} is required, and missing"
        case "union_tag_invalid":
            tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
            return f"found {context['discriminator'].strip(chr(39))} '{context['tag']}'{did_you_mean(str(context['tag']), tags)}"
        case "literal_error":
            return f"found {_shown(found)}; expected {context['expected']}"
        case "string_pattern_mismatch" if context["pattern"].startswith("^[a-z0-9]("):
            return f"found {_shown(found)}; expected lower-case letters, digits and '-', beginning and ending with a letter or digit"
        case _:
            return f"found {_shown(found)}; {_lower(error['msg'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(message: str) -> str:
    message = message.replace("Input should", "it should")
    return message[:1].lower() + message[1:]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the class at pydantic's location, as the file spells them."""
    annotation: Any = PrismRun
    for part in location:
        annotation = _step(annotation, part)
    return [field.alias or name for name, field in annotation.model_fields.items()] if _is_model(annotation) else []


def _step(annotation: Any, part: int | str) -> Any:
    """One part of a location down: a list item, a union's member by its tag, or a field by its alias."""
    for option in _options(annotation):
        if isinstance(part, int):
            return get_args(option)[0] if get_args(option) else None
        if not _is_model(option):
            continue
        if part in _tags(option):
            return option
        for name, field in option.model_fields.items():
            if part == (field.alias or name):
                return _only(field.annotation)
    return None


def _only(annotation: Any) -> Any:
    """`Model` out of `Model | None`; unions of several models stay."""
    models = [option for option in _options(annotation) if option is not type(None)]
    return models[0] if len(models) == 1 else annotation


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) is tuple or _is_model(annotation):
        return [annotation]
    return [option for inner in get_args(annotation) for option in _options(inner)] or [annotation]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """Values a union is told apart by: a stage's `kind`, an algorithm's `name`."""
    fields = [model.model_fields[key] for key in ("kind", "name") if key in model.model_fields]
    return next((get_args(field.annotation) for field in fields if get_origin(field.annotation) is Literal), ())


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
