"""Exports, read back by the code of the systems that they are for: `make test-interchange`."""
