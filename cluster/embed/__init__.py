"""Embedding: vectors of records, turns and questions."""
