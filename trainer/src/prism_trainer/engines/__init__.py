"""How the stages compute: `local` is torch and transformers in one process; `verl` will be Ray and vLLM on many GPUs."""
