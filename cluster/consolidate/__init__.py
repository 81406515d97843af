"""Consolidation: newer memories are held against older ones; each decision is kept with its grounds."""
