"""The Hugging Face hub: what is fetched from it, and the sentences for what cannot be.

    fetch() -> a process of its own (`python -m prism_trainer.hub`) -> huggingface_hub -> the folder of a snapshot

A process, so that it can be ended at any moment, and because huggingface_hub reads its environment (HF_TOKEN, HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE) on import. What its cache has already is not fetched again.
"""
