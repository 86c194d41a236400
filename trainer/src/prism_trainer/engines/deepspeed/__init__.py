"""The discriminator's warm-up on accelerate and DeepSpeed ZeRO-2: image rl. The only package that imports them.

warmup     the driver: students, ranks, checkpoints
students   what ranks run first: each draws its share of the students' responses, and one makes the discriminator
training   what ranks run then: the steps
sharded    a discriminator and its optimizer under ZeRO-2
"""
