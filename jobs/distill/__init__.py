"""Distillation: what the modules of `python -m jobs.distill` are made of."""
