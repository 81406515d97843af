"""What a store finds wrong."""


class StoreError(Exception):
    """The store cannot do what was asked. The message names the store and the remedy."""
