"""Engine local: torch and transformers in one process, on a CPU or one GPU."""
