"""A store by models behind an endpoint, as a user without a GPU makes it: capped, gone on with, paid once."""

from pathlib import Path

import lancedb
import pytest

from cluster.profiles import SHIPPED
from cluster.store.errors import StoreError
from cluster.store.files import Files
from cluster.store.store import Store
from tests import endpoint as served
from tests.e2e.conftest import CANARY, LOCAL, here, job
from tests.unit.cluster.consolidate.nights import IGNORE

COST = (100 * 1.0 + 10 * 2.0) / 1e6
"""What the endpoint charges for a request."""


CAP = 0.0045
"""A few requests: what one may cost at most, about 0.0036, is reserved before it is sent."""


def remember_or_decide(messages: list[dict]) -> str:
    if "<STORED>" in messages[-1]["content"]:
        return IGNORE
    return served.by_rules(messages, "<CURRENT>")


def write_config(path: Path, server: served.Endpoint) -> Path:
    """The shipped profiles at this server; the encoder's segments are short, so that there are many."""
    shipped = (SHIPPED / "encoders" / "openai.toml").read_text(encoding="utf-8")
    profile = path.with_name("short.toml")
    profile.write_text(shipped.replace("max_turns = 8", "max_turns = 2"), encoding="utf-8")
    path.write_text(
        f"""
        profile = "{profile}"
        [endpoint]
        base_url = "{server.base_url}"
        model = "general-1"
        concurrency = 4
        prompt_price = 1.0
        output_price = 2.0
        [encoder_pool]
        batch_size = 5
        [consolidation]
        decider = "model"
        decider_profile = "openai"
        """
    )
    return path


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_night_by_endpoint_stops_at_its_cap_goes_on_and_pays_once(archive, tmp_path):
    store, env = tmp_path / "store", LOCAL | {"OPENAI_API_KEY": CANARY}
    with served.Endpoint(remember_or_decide) as server:
        config = write_config(tmp_path / "night.toml", server)
        command = ["jobs.backfill", "--archive", archive, "--store", store, "--config", config]
        capped = job(*command, "--max-cost", CAP, **env).summary
        num_capped = sum(server.paid.values())
        assert capped["status"] == "stopped" and num_capped > 0
        assert capped["cost"] == pytest.approx(num_capped * COST)
        assert (capped["prompt_tokens"], capped["output_tokens"]) == (100 * num_capped, 10 * num_capped)
        with pytest.raises(StoreError, match="holds no finished run"):
            Store(str(store))

        night = here(*command, "--consolidate", "--max-cost", 100, **env).summary
        consolidation = night["consolidation"]
        assert (night["status"], night["num_in_doubt"]) == ("done", 0)
        assert night["num_records"] > 0 and night["prompt_tokens"] > 0
        num_decided = sum("<STORED>" in body["messages"][-1]["content"] for body in server.requests)
        assert consolidation["status"] == "done" and consolidation["num_failed"] == 0
        assert num_decided == consolidation["num_calls"] > 0
        # Both runs together: what the first had paid for is not paid again.
        assert set(server.paid.values()) == {1}
        assert night["cost"] == pytest.approx((len(server.paid) - num_decided) * COST)
        assert consolidation["cost"] == pytest.approx(num_decided * COST)
        assert server.authorizations == {f"Bearer {CANARY}"}

        num_requests = len(server.requests)
        assert here(*command, **env).summary["status"] == "unchanged"
        assert len(server.requests) == num_requests

    manifest = Files(str(store), "runs").get_json(f"{night['run_id']}.json")
    assert manifest["encoder"]["endpoint"]["api_key_env"] == "OPENAI_API_KEY"
    assert not files_with(tmp_path, CANARY)
    assert not Files(str(store), "staging").paths("answers")
    decisions = lancedb.connect(store).open_table("decisions").to_arrow().to_pylist()
    assert "general-1" in {row["model"] for row in decisions}
