"""Verifiable rewards: pure functions from a response to a number."""
