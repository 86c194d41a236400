"""Stage sft on LLaMA-Factory 0.9.5 with DeepSpeed: image sft. The only package that imports LLaMA-Factory.

sft        the driver: data, settings, ranks, checkpoints
dataset    our rows as LLaMA-Factory reads them
settings   our configuration as LLaMA-Factory's arguments and DeepSpeed's
template   how a conversation becomes tokens: the model's own way, to the letter
tokens     what a rank runs first: every row to tokens, and none too long
training   what every rank runs then: the steps
boundary   what happens at a step's end: progress, stop, save
exports    what it saved, as a checkpoint of ours
"""
