"""Distillation: a teacher writes records, a verifier and a judge sift them, examples are made of the rest."""
