"""The operator's own environment."""

import pytest

from prism_operator.errors import SettingsError
from prism_operator.settings import Settings, read_settings


def test_an_empty_environment_gives_the_defaults():
    assert read_settings({}) == Settings() == read_settings({"PRISM_WATCH_NAMESPACES": "", "PRISM_WORKERS": ""})


def test_lists_are_separated_by_commas():
    read = read_settings({"PRISM_WATCH_NAMESPACES": " a, b ,,c", "PRISM_IMAGE_PULL_SECRETS": "one"})
    assert (read.watch_namespaces, read.image_pull_secrets) == (("a", "b", "c"), ("one",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRISM_METRICS_PORT", "tcp://10.0.0.1:8080"),
        ("PRISM_METRICS_PORT", "70000"),
        ("PRISM_HEALTH_PORT", "-1"),
        ("PRISM_LOG_FORMAT", "xml"),
        ("PRISM_LOG_LEVEL", "LOUD"),
        ("PRISM_IMAGE_PULL_POLICY", "Sometimes"),
        ("PRISM_PROGRESS_SECONDS", "0"),
        ("PRISM_PROGRESS_SECONDS", "nan"),
        ("PRISM_WORKERS", "0"),
        ("PRISM_MAX_WRITES", "many"),
    ],
)
def test_a_value_that_does_not_hold_is_named_with_what_was_found(name, value):
    with pytest.raises(SettingsError) as error:
        read_settings({name: value})
    assert name in str(error.value) and value in str(error.value) and "correct the operator's environment" in str(error.value)


def test_every_variable_that_does_not_hold_is_named_at_once():
    with pytest.raises(SettingsError, match=r"PRISM_LOG_LEVEL.*PRISM_WORKERS"):
        read_settings({"PRISM_LOG_LEVEL": "x", "PRISM_WORKERS": "x"})


def test_variables_of_others_are_left_alone():
    assert read_settings({"PRISM_SERVICE_HOST": "10.0.0.1", "PRISM_PORT": "tcp://10.0.0.1:80", "HOME": "/"}) == Settings()
