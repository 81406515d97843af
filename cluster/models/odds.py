"""Probabilities as log-odds, in which what several models say can be added."""

import math


def log_odds(probability: float, least: float = 1e-6) -> float:
    """ln(p / (1 - p)), p held within [least, 1 - least]."""
    inner = min(max(probability, least), 1 - least)
    return math.log(inner / (1 - inner))


def probability_of(odds: float) -> float:
    """The inverse: of log-odds their probability."""
    return 1 / (1 + math.exp(-odds))
