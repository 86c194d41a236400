"""Every module that image eval is asked for can be imported here, in the pinned versions."""

import sys

import pytest
from vllm.envs import environment_variables

from prism_trainer.engines.lmms.arguments import ENVIRONMENT
from prism_trainer.environment import MODULES, PINS, carriers, installed_versions, main, problems


def test_all_of_it_is_there_in_the_pinned_versions():
    assert list(problems("eval", in_image=False)) == []


def test_versions_are_told_without_their_local_part():
    assert installed_versions("eval") == PINS["eval"]


def test_a_module_that_is_missing_is_told(monkeypatch, capsys):
    monkeypatch.setitem(MODULES, "eval", ("no_such_module",))
    assert main(["eval"]) == 1
    assert "no_such_module cannot be imported: ModuleNotFoundError" in capsys.readouterr().err


def test_one_of_our_modules_that_cannot_be_imported_is_told_though_no_carrier_imports_it_at_once(monkeypatch):
    module = "prism_trainer.engines.lmms.replicas"
    monkeypatch.setitem(sys.modules, module, None)
    assert f"{module} cannot be imported" in {sentence.partition(":")[0] for sentence in problems("eval", in_image=False)}


@pytest.mark.parametrize("module", carriers("eval"))
def test_who_carries_its_stages_out_can_be_imported(module):
    assert callable(pytest.importorskip(module).run)


def test_every_variable_for_vllm_is_one_that_it_knows():
    assert ENVIRONMENT.keys() <= environment_variables.keys()
