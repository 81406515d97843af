"""Audits: which memories of a store are junk, whoever wrote them, and how they are closed."""
