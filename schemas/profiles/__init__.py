"""Profiles: everything that decides what a model answers, with a fingerprint over all of it.

A profile is a TOML file (some ship in `cluster/profiles/`). Before a run the driver *resolves* it: prompts
are read from where they live and the hashes of base and adapter are filled in. Only a resolved profile has a
fingerprint, so two stores that name the same fingerprint were written by the same model.
"""
