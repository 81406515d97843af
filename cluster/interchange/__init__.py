"""Memories out to other systems and in from them: what is selected of a store, and a module a format."""
