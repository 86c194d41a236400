"""A look at the machines before hours are spent: GPUs, memory, network, storage, libraries. A process of its own, through Ray tasks.

    request -> every node by itself -> storage from node to node -> all-reduce -> judgement -> preflight.json

It takes a minute or two, most of it torch's import on each node. Nothing here knows engines or stages.
"""
