"""Training: what the modules of `python -m jobs.train` are made of."""
