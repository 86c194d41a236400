"""`python -m prism_operator` is `prism`."""

from prism_operator.cli import app

app()
