"""One process for each GPU, on this machine or on every node of a Ray cluster: started together, ended together.

agent     the processes of one machine
launch    all machines of a stage, from start to end
process   what each process runs
messages  what rank 0 tells the driver while it trains, and the stop the driver asks for
"""
