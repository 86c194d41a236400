"""Engine verl: stages alignment and rlvr on verl 0.9.1, vLLM and Ray, on any number of GPUs, or on none. The only importer of verl.

The stage's own process is Ray's driver. It draws prompts in the stage's order, has a `RolloutWorker` sample and reward each group on
vLLM, computes advantages, and has the workers of the `PolicyEngine` (FSDP2) take one optimizer step. What is learnt, and how, comes from
`algorithms/`, `rewards/` and `discriminator/`, the same as in engine local; a checkpoint is the same too, and can be carried on by either
engine, on any number of GPUs.
"""
