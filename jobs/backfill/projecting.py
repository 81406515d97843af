"""What a dry run says of the costs: calls, tokens, and money where a model behind an endpoint has prices."""

from typing import TYPE_CHECKING

from jobs.backfill.config import BackfillConfig
from jobs.backfill.plan import Plan
from jobs.common.cli import say
from schemas.profiles.encoder import EncoderProfile

if TYPE_CHECKING:
    from cluster.store.store import Store


def expected_costs(
    config: BackfillConfig, encoder: EncoderProfile, plan: Plan, store: "Store"
) -> dict[str, int | float | str]:
    """Keys of the summary. What the store has encoded already tells best; else the profile's prompt does."""
    from cluster.backfill.projection import COLUMNS, project

    known = store.batches("segments", COLUMNS, where="active") if store.run() else ()
    found = project(plan.num_asked, plan.num_tokens, encoder, known)
    source = "store" if found.is_of_store else "profile"
    expected: dict[str, int | float | str] = {
        "expected_calls": found.num_calls,
        "expected_prompt_tokens": found.prompt_tokens,
        "expected_output_tokens": found.output_tokens,
        "expected_from": source,
    }
    money = ""
    if encoder.engine == "openai":
        cost = config.endpoint.cost(found.prompt_tokens, found.output_tokens)
        expected["expected_cost"] = round(cost, 4)
        money = f", {cost:,.4g} by the prices in [endpoint]"
    say(
        f"[encode] would take about {found.num_calls:,} calls with {found.prompt_tokens:,} tokens of prompts "
        f"and {found.output_tokens:,} of answers{money} (expected from the {source})"
    )
    return expected
