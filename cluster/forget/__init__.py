"""Forgetting: what an erasure takes along, the erasure itself, and the search that proves it."""
