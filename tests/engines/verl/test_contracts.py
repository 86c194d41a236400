"""What engine verl relies on inside verl is as it was when it was read."""

import importlib
import importlib.metadata
import inspect
import pkgutil

import pytest

from prism_trainer.engines import verl
from prism_trainer.engines.verl import pin
from prism_trainer.errors import PrismError
from verl_contracts import RELIED_ON, recorded, resolve, shape_of

PLACES = [(ours, place) for ours, places in RELIED_ON.items() for place in places]


@pytest.mark.parametrize(("ours", "place"), PLACES, ids=[place.partition(":")[2] for _, place in PLACES])
def test_verl_is_as_it_was_read(ours, place):
    was, now = recorded()[place], shape_of(resolve(place))
    assert now["signature"] == was["signature"], f"{place} takes other arguments: read engines/verl/{ours} against it, then record it"
    assert now["source"] == was["source"], f"{place} does something else: read engines/verl/{ours} against it, then record it"


def subclasses_of_verls():
    """Classes of ours with one of verl's above them. What is abstract there is verl's to be given, and no reliance of ours."""
    for module in pkgutil.iter_modules(verl.__path__, f"{verl.__name__}."):
        for one in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(one) and one.__module__ == module.name and any(map(is_verls, one.__mro__)):
                yield one


def is_verls(one):
    return one.__module__.partition(".")[0] == "verl"


def is_carried_out(theirs, name):
    one = vars(theirs).get(name)
    return inspect.isroutine(one) and not getattr(one, "__isabstractmethod__", False)


OVERRIDDEN = [
    (ours, theirs, name)
    for ours in subclasses_of_verls()
    for name in vars(ours)
    for theirs in [next((base for base in ours.__mro__[1:] if is_verls(base) and is_carried_out(base, name)), None)]
    if theirs is not None
]


@pytest.mark.parametrize(("ours", "theirs", "name"), OVERRIDDEN, ids=[f"{ours.__name__}.{name}" for ours, _, name in OVERRIDDEN])
def test_what_we_override_of_verls_is_among_what_we_rely_on(ours, theirs, name):
    known = [resolve(place) for _, place in PLACES]
    assert inspect.unwrap(getattr(theirs, name)) in known, f"add {theirs.__module__}:{theirs.__qualname__}.{name} to RELIED_ON"


def test_overriding_is_seen_where_it_is():
    seen = {(ours.__name__, name) for ours, _, name in OVERRIDDEN}
    assert seen >= {
        ("PrismTrainer", "fit"), ("PrismTrainer", "_balance_batch"), ("AlignmentTrainer", "_update_critic"), ("RolloutWorker", "__init__"),
        ("Rollouts", "__init__"), ("PolicyTrainingWorker", "__init__"), ("PolicyEngine", "forward_step"),
    }  # fmt: skip


def test_the_pinned_version_is_this_one():
    pin.require_pinned_verl()


@pytest.mark.parametrize(
    ("version", "sentence"), [("0.10.0", "this image has verl 0.10.0, and engine verl is written for exactly 0.9.1"), (None, "has none")]
)
def test_another_version_is_refused_with_a_sentence(monkeypatch, version, sentence):
    def find(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", find)
    with pytest.raises(PrismError, match=sentence):
        pin.require_pinned_verl()
