"""Data at rest and between stages. Imports stdlib, pyarrow and pydantic; nothing of ours."""
