"""Advantages, losses and schedules: pure torch, no models, no files. Both engines take their mathematics from here."""
