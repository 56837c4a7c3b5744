"""Presets and trained weights for reviewgen that write about music."""
