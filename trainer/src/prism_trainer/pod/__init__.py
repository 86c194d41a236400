"""What runs in a stage's container: `python -m prism_trainer.pod /prism/jobs/sft.json`.

A supervisor around the trainer, which only ever sees local paths. In order: an earlier stage in the same pods, a final checkpoint that is
there already, the gang of Ray nodes, inputs, the checkpoint to go on from, the trainer, and again the trainer if it failed and may;
meanwhile progress on a port and copies to object storage; at the end the last words, always.
"""
