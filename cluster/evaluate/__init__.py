"""Evaluation: encoders on trial, rankings of memories, answers to questions, and their measures."""
