"""The stages, a page each. `run(job, reporter)` takes a job, trains, commits, and returns the committed checkpoint."""
