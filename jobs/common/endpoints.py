"""Models behind an endpoint, for jobs that ask one: settings, workers, and what was paid."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from cluster.runtime import PoolConfig
from jobs.common.cli import UsageError
from jobs.common.pools import EnginePool
from jobs.common.run import Run
from schemas.endpoint import EndpointConfig
from schemas.profiles.model import AskedProfile

if TYPE_CHECKING:
    from cluster.store.files import Files

Asked = TypeVar("Asked", bound=AskedProfile)


def at_endpoint(profile: Asked, given: EndpointConfig, max_cost: float | None) -> Asked:
    """The profile with those settings of `[endpoint]` that a config gives. UsageError where that, or a cap on
    what it costs, cannot work."""
    if profile.engine != "openai":
        if given.model_fields_set or max_cost is not None:
            raise UsageError(
                f"[endpoint], max_cost: profile {profile.name!r} asks a model on the cluster's workers; name "
                "a profile with engine 'openai', as the shipped 'openai' is, or leave them out"
            )
        return profile
    assert profile.endpoint is not None
    settings = profile.endpoint.model_dump() | given.model_dump(exclude_unset=True)
    endpoint = EndpointConfig.model_validate(settings)
    for name in ("base_url", "model"):
        if not getattr(endpoint, name):
            raise UsageError(
                f"{name}='': profile {profile.name!r} asks a model behind an endpoint; set {name} in the "
                "table [endpoint] of --config or of the profile"
            )
    if endpoint.batch:
        raise UsageError(
            f"batch=true: profile {profile.name!r} works while it is asked, and a batch is answered within a "
            "day; leave it out of [endpoint]. [teacher_endpoint] and [judge_endpoint] take it"
        )
    if max_cost is not None and not endpoint.has_prices:
        raise UsageError(
            f"max_cost={max_cost}: it caps nothing without prices; set prompt_price and output_price in the "
            "table [endpoint]"
        )
    return profile.model_copy(update={"endpoint": endpoint})


def all_at_endpoint(
    profiles: dict[str, Asked], given: EndpointConfig, max_cost: float | None
) -> dict[str, Asked]:
    """The same of several profiles, of which those that ask no endpoint stay as they are."""
    asked = {name: profile for name, profile in profiles.items() if profile.engine == "openai"}
    # Where none asks an endpoint, any of them says what is wrong.
    checked = {name: at_endpoint(profile, given, max_cost) for name, profile in (asked or profiles).items()}
    return profiles | checked


def workers(
    profile: AskedProfile, pool: EnginePool, files: "Files", role: str, max_cost: float | None
) -> tuple[PoolConfig, dict]:
    """Pool, and options of the engine. `role` names its answers in the ledger of `files`."""
    if profile.engine == "openai":
        return pool.of_endpoint(), {"files": files, "role": role, "max_cost": max_cost}
    return pool, pool.engine


@contextlib.contextmanager
def paying(this: Run, profile: AskedProfile | None, store: str, role: str) -> Iterator[None]:
    """Count for the summary, however the work ends: `cost`, `paid_prompt_tokens` and `paid_output_tokens` of
    all answers that no run has published yet, and `num_in_doubt`, the requests that were in flight when an
    earlier run was killed. `prompt_tokens` and `output_tokens` are the same until the work counts its own."""
    from cluster.models.paid_answers import Responses
    from cluster.store.files import Files

    if profile is None or profile.engine != "openai":
        yield
        return
    assert profile.endpoint is not None
    files = Files(store, "staging")
    this.counts["num_in_doubt"] = len(Responses(files, role, profile.fingerprint).in_doubt)
    try:
        yield
    finally:
        responses = Responses(files, role, profile.fingerprint)
        spent = dict(zip(("prompt_tokens", "output_tokens"), responses.spent, strict=True))
        this.counts |= spent | {f"paid_{name}": num for name, num in spent.items()}
        this.counts["cost"] = round(responses.cost(profile.endpoint), 6)
