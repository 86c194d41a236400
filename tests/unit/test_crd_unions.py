"""Kinds merged into one object: what they share, what only some have, and what cannot be merged."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from prism_operator.crdgen.schema import structural_schema


class Wheel(BaseModel):
    """Round."""

    size: int = Field(20, ge=10, description="In inches.")


class SmallWheel(Wheel):
    """Round."""

    size: int = Field(12, ge=5, description="In inches.")


class Car(BaseModel):
    """Four wheels."""

    kind: Literal["car"]
    wheel: Wheel = Field(default_factory=Wheel, description="Of four.")
    doors: int = Field(4, description="To get in.")
    name: str = Field("car", description="What it is called.")


class Bicycle(BaseModel):
    """Two wheels."""

    kind: Literal["bicycle"]
    wheel: SmallWheel = Field(default_factory=SmallWheel, description="Of two.")
    bell: bool = Field(False, description="To be heard.")
    name: str = Field("bicycle", description="What it is called.")


class Ship(BaseModel):
    """No wheel."""

    kind: Literal["ship"]
    name: str = Field("ship", description="What it is called.")


class Garage(BaseModel):
    """Holds one."""

    vehicle: Annotated[Car | Bicycle | Ship, Field(discriminator="kind")] = Field(description="The one.")


MERGED = structural_schema(Garage)["properties"]["vehicle"]
(RULE,) = (rule["rule"] for rule in MERGED["x-kubernetes-validations"])


def test_the_kind_is_required_and_one_of_those_there_are():
    assert MERGED["required"] == ["kind"]
    assert MERGED["properties"]["kind"]["enum"] == ["car", "bicycle", "ship"]
    assert MERGED["properties"]["kind"]["description"] == "car: Four wheels. bicycle: Two wheels. ship: No wheel."


def test_fields_of_all_kinds_are_there():
    assert list(MERGED["properties"]) == ["kind", "wheel", "doors", "name", "bell"]


def test_a_field_of_some_kinds_is_refused_for_the_others():
    assert "self.kind in ['car'] || !(has(self.doors))" in RULE
    assert "self.kind in ['car', 'bicycle'] || !(has(self.wheel))" in RULE


def test_a_field_of_all_kinds_has_no_rule():
    assert "self.name" not in RULE


def test_the_range_is_the_widest_and_a_rule_narrows_it():
    assert MERGED["properties"]["wheel"]["properties"]["size"]["minimum"] == 5
    assert "self.kind != 'car' || !has(self.wheel) || !has(self.wheel.size) || self.wheel.size >= 10" in RULE


def test_descriptions_and_defaults_say_whose_they_are_where_they_differ():
    properties = MERGED["properties"]
    assert properties["wheel"]["description"] == "(car) Of four. (bicycle) Of two."
    assert properties["wheel"]["properties"]["size"]["description"] == "In inches. Default: 20 (car), 12 (bicycle)."
    assert properties["doors"]["description"] == "(car) To get in. Default: 4."
    assert properties["name"]["description"] == "What it is called. Default: the kind."


class Tandem(BaseModel):
    """Like a bicycle, but for the type of its bell."""

    kind: Literal["tandem"]
    bell: str = Field("ring", description="To be heard.")


class Demanding(BaseModel):
    """Like a ship, but it insists on its name."""

    kind: Literal["demanding"]
    name: str = Field(description="What it is called.")


@pytest.mark.parametrize(
    ("left", "right", "what"), [(Bicycle, Tandem, "'type' of 'bell'"), (Ship, Demanding, "'required' of ''")], ids=["type", "required"]
)
def test_what_cannot_be_merged_stops_the_generator(left, right, what):
    class Both(BaseModel):
        """Holds one."""

        vehicle: Annotated[left | right, Field(discriminator="kind")]

    with pytest.raises(ValueError, match=f"{what} differs between kinds"):
        structural_schema(Both)


def test_a_word_without_a_translation_stops_the_generator():
    class Even(BaseModel):
        """Counts in twos."""

        count: int = Field(multiple_of=2)

    with pytest.raises(ValueError, match="multipleOf"):
        structural_schema(Even)
