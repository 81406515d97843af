"""The sample world: a small archive with known answers. `python -m jobs.sample --help` says more."""
