"""The one table of the paper's numbers says what the configurations say."""

from functools import reduce
from pathlib import Path

import pytest
from pydantic.alias_generators import to_snake

import prism_trainer
from prism_trainer.contract.configs import AlignmentConfig, Dapo, DiscriminatorConfig, Grpo, Gspo, RlvrConfig

TABLE = Path(prism_trainer.__file__).parents[2] / "decisions" / "0006-whose-numbers.md"
OWNERS = {
    one.__name__.removesuffix("Config").lower(): one() for one in (AlignmentConfig, DiscriminatorConfig, RlvrConfig, Grpo, Dapo, Gspo)
}


def _rows():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.read_text().splitlines() if line.startswith("|")]
    return [(row[0], row[1]) for row in lines[2:]]


@pytest.mark.parametrize(("field", "ours"), _rows(), ids=lambda value: value)
def test_item_17_the_table_of_numbers_holds(field, ours):
    owner, *path = field.split(".")
    assert str(reduce(lambda value, name: getattr(value, to_snake(name)), path, OWNERS[owner])) == ours


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
def test_every_number_of_an_algorithm_is_in_the_table(name):
    told = {to_snake(field.split(".")[1]) for field, _ in _rows() if field.startswith(f"{name}.")}
    assert told == type(OWNERS[name]).model_fields.keys() - {"name"}
