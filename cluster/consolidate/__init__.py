"""Consolidation: newer memories are compared with older ones; each decision is kept with its reason."""
