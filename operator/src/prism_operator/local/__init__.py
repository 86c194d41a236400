"""The executor of `prism run`: stages are child processes, state is files, everything under one run folder.

status.json                        the PrismRun with its status, as the API server would hold it
prismrun.yaml                      the file as run
results.json                       what the evaluation stages found
stages/<stage>/attempt-<n>/        job.json process.json stop.json log.txt, and the trainer's reports
checkpoints/<stage>/attempt-<n>/   step-000040/manifest.json and so on
"""
