"""What operator and trainer tell each other: configurations, jobs, checkpoints, reports.

pydantic and the standard library only. The operator imports this package and nothing else of the trainer, so that its image
stays free of torch; an import contract and a test hold that.
"""
