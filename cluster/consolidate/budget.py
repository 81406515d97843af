"""What a run may still ask of a model: one count of calls and tokens, shared by all its deciders."""

from cluster.runtime import is_local


class Budget:
    """Calls and tokens that are left; None is without limit."""

    def __init__(self, max_calls: int | None = None, max_tokens: int | None = None):
        self.calls_left, self.tokens_left = (
            float("inf") if cap is None else cap for cap in (max_calls, max_tokens)
        )

    def take(self, expected_tokens: list[int]) -> int:
        """How many of these calls, from the first on, may be made; they are counted at once."""
        allowed = 0
        for tokens in expected_tokens:
            if self.calls_left < 1 or self.tokens_left < tokens:
                break
            self.calls_left -= 1
            self.tokens_left -= tokens
            allowed += 1
        return allowed

    def settle(self, num_calls: int, num_tokens: int) -> None:
        """Count what calls cost beyond what was taken for them: second tries, longer answers."""
        self.calls_left -= num_calls
        self.tokens_left -= num_tokens


def budget_for_all(max_calls: int | None, max_tokens: int | None) -> "Budget | SharedBudget":
    """A budget for all deciders of a run, wherever they work."""
    return (Budget if is_local() else SharedBudget)(max_calls, max_tokens)


class SharedBudget:
    """A Budget in an actor of its own, for deciders in several processes."""

    def __init__(self, max_calls: int | None, max_tokens: int | None):
        import ray

        self._actor = ray.remote(Budget).options(num_cpus=0).remote(max_calls, max_tokens)

    def take(self, expected_tokens: list[int]) -> int:
        import ray

        return ray.get(self._actor.take.remote(expected_tokens))

    def settle(self, num_calls: int, num_tokens: int) -> None:
        import ray

        ray.get(self._actor.settle.remote(num_calls, num_tokens))
