"""Profiles that ship, by kind: encoders, embedders, deciders, judges, answerers; and the adapters they
name."""

from pathlib import Path

SHIPPED = Path(__file__).parent
"""Its folders are the kinds; a profile is KIND/NAME.toml."""
