"""`prism new`: every PrismRun it writes is valid, says what was asked for, and explains itself."""

import itertools
import re
from pathlib import Path

import pytest
import yaml

from prism_operator.api import PrismRun
from prism_operator.errors import PrismError
from prism_operator.new import ALGORITHMS, TEMPLATES, write_prismrun
from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems
from prism_trainer.contract.configs import RlvrConfig

EVERY = list(itertools.product(TEMPLATES, ALGORITHMS))


def parsed(size: str, algorithm: str = "grpo", name: str = "demo") -> PrismRun:
    found = parse_run(yaml.safe_load(write_prismrun(None, size, algorithm, name)))
    assert found.problems == ()
    assert found.run is not None
    return found.run


def stage(run: PrismRun, kind: str) -> object:
    return next(stage for stage in run.spec.stages if stage.kind == kind)


@pytest.mark.parametrize(("size", "algorithm"), EVERY)
def test_every_combination_is_a_prismrun_that_can_be_planned(size: str, algorithm: str) -> None:
    run = parsed(size, algorithm)
    assert plan_problems(run) == []
    assert run.metadata.name == "demo"
    assert [stage.kind for stage in run.spec.stages] == ["sft", "discriminator", "alignment", "rlvr", "evaluation"]


@pytest.mark.parametrize(("size", "algorithm"), EVERY)
def test_the_algorithm_is_the_one_asked_for_with_its_own_defaults(size: str, algorithm: str) -> None:
    config = stage(parsed(size, algorithm), "rlvr").config  # type: ignore[attr-defined]
    default = RlvrConfig.model_validate({"algorithm": {"name": algorithm}}).algorithm
    assert config.algorithm.model_copy(update={"overlong_buffer_tokens": None}) == default.model_copy(
        update={"overlong_buffer_tokens": None}
    )
    assert getattr(config.algorithm, "overlong_buffer_tokens", 0) < config.rollout.max_response_tokens


@pytest.mark.parametrize("size", ["4b", "8b"])
def test_the_large_sizes_have_the_defaults_which_are_the_papers_values(size: str) -> None:
    """But for how often they save, and the optimizer of stage 3, where each script has its own."""
    for stage in parsed(size).spec.stages:
        config = stage.config.model_copy(update={"save_every": 100})
        assert config == type(config)().model_copy(update={"save_every": 100, **_own(config)}), stage.name


def _own(config: object) -> dict[str, object]:
    return {name: getattr(config, name) for name in ("benchmarks",) if hasattr(config, name)}


@pytest.mark.parametrize(
    ("algorithm", "weight_decay", "warmup_steps", "warmup_ratio"), [("grpo", 0.01, 0, 0.0), ("dapo", 0.1, 10, 0.0), ("gspo", 0.1, 0, 0.05)]
)
def test_stage_3_has_the_optimizer_of_its_script(algorithm: str, weight_decay: float, warmup_steps: int, warmup_ratio: float) -> None:
    optimizer = stage(parsed("4b", algorithm), "rlvr").config.optimizer  # type: ignore[attr-defined]
    assert (optimizer.weight_decay, optimizer.warmup_steps, optimizer.warmup_ratio) == (weight_decay, warmup_steps, warmup_ratio)


def test_the_tiny_size_uses_the_data_of_the_example() -> None:
    example = Path(__file__).parents[2] / "examples" / "digits" / "prismrun.yaml"
    given = PrismRun.model_validate(yaml.safe_load(example.read_text()))
    run = parsed("tiny")
    assert run.spec.model == given.spec.model
    assert run.spec.system_prompt == given.spec.system_prompt
    assert [stage.data for stage in run.spec.stages] == [stage.data for stage in given.spec.stages]


@pytest.mark.parametrize(("size", "algorithm"), EVERY)
def test_every_option_is_explained_where_it_is_first_set(size: str, algorithm: str) -> None:
    """On its own line; one that comes again, as learningRate does, need not be."""
    lines = write_prismrun(None, size, algorithm, "demo").splitlines()
    set_first: dict[str, str] = {}
    for line in lines[lines.index("spec:") :]:
        if match := re.match(r"\s*-?\s*([a-zA-Z]+): *[^\s#]", line):
            set_first.setdefault(match[1], line)
    assert [line.strip() for line in set_first.values() if "#" not in line] == ["- kind: sft"]


@pytest.mark.parametrize(("size", "algorithm"), EVERY)
def test_no_line_is_too_long_or_ends_in_a_space(size: str, algorithm: str) -> None:
    text = write_prismrun(None, size, algorithm, "demo")
    assert all(len(line) <= 140 and line == line.rstrip() for line in text.splitlines())
    assert text.endswith("\n")
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", ["123", "true", "null", "1e5", "a-b"])
@pytest.mark.parametrize("size", TEMPLATES)
def test_a_name_that_yaml_would_read_as_something_else_stays_a_name(size: str, name: str) -> None:
    run = parsed(size, name=name)
    storage = run.spec.storage
    assert run.metadata.name == name
    assert (storage.local.path if storage.local else storage.pvc and storage.pvc.sub_path) == (f"runs/{name}" if storage.local else name)


@pytest.mark.parametrize(
    ("size", "algorithm", "name", "sentence"),
    [
        ("70b", "grpo", "demo", "size is '70b'; expected tiny, 4b or 8b"),
        ("4b", "ppo", "demo", "algorithm is 'ppo'; expected grpo, dapo or gspo"),
        ("4b", "grpo", "My Run", "name is 'My Run'; expected at most 36"),
        ("4b", "grpo", "a\nb: c", "expected at most 36"),
        ("4b", "grpo", "x" * 37, "expected at most 36"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_sentence(size: str, algorithm: str, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        write_prismrun(None, size, algorithm, name)
    assert isinstance(raised.value, PrismError)


def test_the_file_holds_what_is_returned(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "run.yaml"
    assert write_prismrun(file, "tiny", "grpo", "demo") == file.read_text()


@pytest.mark.parametrize("size", ["4b", "8b"])
def test_item_4_the_recipe_of_sft_ships_as_a_file(size: str) -> None:
    config = stage(parsed(size), "sft").config
    optimizer = config.optimizer
    assert (config.epochs, config.max_steps, config.max_length) == (1, None, 8192)
    assert (config.freeze_vision, config.freeze_projector, config.freeze_language) == (True, True, False)
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.warmup_ratio) == (1e-5, "cosine", 0.1)
