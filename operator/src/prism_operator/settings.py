"""What the operator's own deployment says. Read once, from its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from prism_operator.errors import SettingsError
from prism_trainer.contract.environments import Environment
from prism_trainer.contract.schema import Frozen

PREFIX = "PRISM_"


class Settings(Frozen):
    """Each field is the environment variable `PRISM_<FIELD>`; lists are separated by commas."""

    watch_namespaces: tuple[str, ...] = Field((), description="Namespaces to look after; none means all.")
    pod_namespace: str = Field("default", description="Namespace of the operator itself.")
    stage_image: str = Field("prism-trainer-cpu:0.1.0", description="Image of stages of engine local whose PrismRun names none.")
    sft_image: str = Field("prism-sft:0.1.0", description="The same for engine verl: of sft.")
    rl_image: str = Field("prism-rl:0.1.0", description="Of discriminator, alignment and rlvr.")
    eval_image: str = Field("prism-eval:0.1.0", description="Of evaluation.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="Of the stages' images.")
    image_pull_secrets: tuple[str, ...] = Field((), description="Names of Secrets in the run's namespace.")
    ray_version: str = Field("2.60.0", description="Of the stages' images; KubeRay chooses its probes by it.")
    log_format: Literal["json", "text"] = Field("json", description="Of the operator's own log.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Of the operator's own log.")
    metrics_port: int = Field(8080, ge=0, le=65535, description="Prometheus; 0 takes a free one.")
    health_port: int = Field(8081, ge=0, le=65535, description="/livez and /readyz; 0 takes a free one.")
    progress_seconds: float = Field(15.0, gt=0, description="How often a running stage is asked for its progress.")
    max_writes: int = Field(16, ge=1, description="Requests to the API server in flight.")
    workers: int = Field(16, ge=1, description="Runs reconciled at once.")

    def image_of(self, environment: Environment) -> str:
        """For a stage whose PrismRun names no image."""
        return {"cpu": self.stage_image, "sft": self.sft_image, "rl": self.rl_image, "eval": self.eval_image}[environment]

    @field_validator("watch_namespaces", "image_pull_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def read_settings(environment: Mapping[str, str]) -> Settings:
    """SettingsError names every variable that does not hold. Variables that are no setting of ours are left alone."""
    given = {name: environment[PREFIX + name.upper()] for name in Settings.model_fields if environment.get(PREFIX + name.upper())}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        found = [f"{PREFIX}{str(e['loc'][0]).upper()} is {e['input']!r}: {e['msg'].lower()}" for e in error.errors()]
        raise SettingsError("; ".join(found) + "; correct the operator's environment") from error
