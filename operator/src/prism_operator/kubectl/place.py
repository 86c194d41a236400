"""Which cluster and namespace a command speaks of, with kubectl's own options. Light: the command line imports it always."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

PLUGIN = "kubectl"
"""What the program's name begins with when kubectl calls it."""

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; by default that of the context.")]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig; by default its current one.")]
Kubeconfig = Annotated[Path | None, typer.Option("--kubeconfig", help="By default $KUBECONFIG, else ~/.kube/config.")]
RunName = Annotated[str, typer.Argument(help="Name of a PrismRun.", metavar="NAME")]


@dataclass(frozen=True)
class Place:
    """As it was asked for; what is left out, the kubeconfig says."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None

    @property
    def is_given(self) -> bool:
        """Whether a cluster was named at all."""
        return any((self.namespace, self.context, self.kubeconfig))
