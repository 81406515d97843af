"""All clients of object stores read one set of settings: the same server, with the same credentials."""

import os

import obstore
import pytest

from cluster.backfill.archive import list_files
from cluster.runtime.storage import CLOUDS, MAX_OUTAGE, StorageConfig
from cluster.store import clients
from cluster.store.errors import StoreError
from cluster.store.tables import connect
from tests.s3_server import S3Server, serving_fake


@pytest.fixture(scope="module")
def server():
    with serving_fake() as found:
        yield found


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """An environment that says nothing of object stores, in a home without settings of any."""
    for name in [name for name in os.environ if name.startswith(CLOUDS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(MAX_OUTAGE, "1")


def keys_seen(server: S3Server) -> set[str]:
    """Ids of the keys with which the server is asked from now on."""
    found: set[str] = set()

    def around(request, do):
        found.add(request.headers["authorization"].partition("Credential=")[2].partition("/")[0])
        return do(request)

    server.around = around
    return found


def ask_all(server: S3Server) -> None:
    """A request of each client."""
    uri = f"s3://{server.new_bucket()}/store"
    obstore.put(clients.bucket(uri), "a.parquet", b"x")
    assert list_files(uri) == ["a.parquet"]
    assert connect(uri).list_tables().tables == []
    clients.s3_client().list_objects_v2(Bucket=uri.split("/")[2])


USUAL = {"AWS_ACCESS_KEY_ID": "usual", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ALLOW_HTTP": "true"}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
def test_the_usual_variables_alone_suffice_for_all_clients(server, monkeypatch, name):
    for variable, value in (USUAL | {name: server.endpoint}).items():
        monkeypatch.setenv(variable, value)
    seen = keys_seen(server)
    ask_all(server)
    assert seen == {"usual"}


def applied(monkeypatch, **settings) -> StorageConfig:
    storage = StorageConfig(**settings)
    for name, value in storage.environment().items():
        monkeypatch.setenv(name, value)
    return storage


def test_the_table_names_server_and_variables_of_credentials_for_all_clients(server, monkeypatch):
    monkeypatch.setenv("BACKUP_ID", "of-backup")
    monkeypatch.setenv("BACKUP_SECRET", "hidden-from-everybody")
    storage = applied(
        monkeypatch,
        endpoint=server.endpoint,
        allow_http=True,
        region="eu-central-1",
        credentials={"AWS_ACCESS_KEY_ID": "BACKUP_ID", "AWS_SECRET_ACCESS_KEY": "BACKUP_SECRET"},
    )
    assert "hidden-from-everybody" not in storage.model_dump_json() + repr(storage)
    seen = keys_seen(server)
    ask_all(server)
    assert seen == {"of-backup"}


def test_a_profile_gives_all_clients_their_credentials(server, monkeypatch, tmp_path):
    (tmp_path / ".aws").mkdir()
    sections = "[default]\naws_access_key_id = d\naws_secret_access_key = d\n"
    sections += "[night]\naws_access_key_id = of-night\naws_secret_access_key = s\n"
    (tmp_path / ".aws" / "credentials").write_text(sections)
    applied(monkeypatch, endpoint=server.endpoint, allow_http=True, region="us-east-1", profile="night")
    seen = keys_seen(server)
    ask_all(server)
    assert seen == {"of-night"}


def test_a_profile_that_is_not_there_is_named(monkeypatch):
    applied(monkeypatch, profile="nobody")
    with pytest.raises(StoreError, match=r"nobody.*check AWS_PROFILE"):
        clients.bucket("s3://bucket/store")


def test_a_profile_beside_keys_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "usual")
    with pytest.raises(ValueError, match=r"profile='night': AWS_ACCESS_KEY_ID is given too"):
        StorageConfig(profile="night")


def test_plain_http_must_be_allowed(monkeypatch):
    with pytest.raises(ValueError, match="plain HTTP; set allow_http = true"):
        StorageConfig(endpoint="http://host:9000")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:9000")
    with pytest.raises(StoreError, match="is plain HTTP; set AWS_ALLOW_HTTP=true"):
        clients.bucket("s3://bucket/store")


@pytest.mark.parametrize(
    ("credentials", "told"),
    [({"AWS_SECRET_ACCESS_KEY": "abcdEFGH1234"}, "AWS_SECRET_ACCESS_KEY: must be the name of a variable"),
     ({"PASSWORD": "HOME"}, r"\['PASSWORD'\]: no variables of an object store")],
)  # fmt: skip
def test_a_credential_that_stands_in_the_file_itself_is_refused_and_not_repeated(credentials, told):
    from jobs.common.job_config import _explain
    from jobs.compact import CompactConfig

    with pytest.raises(ValueError, match=told) as refused:
        CompactConfig(store="s", keep_runs=1, storage={"credentials": credentials})
    lines = "".join(_explain(CompactConfig, item, None) for item in refused.value.errors())
    assert "abcdEFGH1234" not in lines and "**********" in lines


def test_workers_get_what_the_table_says(monkeypatch):
    from jobs.reembed import ReembedConfig

    monkeypatch.setenv("BACKUP_SECRET", "hidden-from-everybody")
    config = ReembedConfig(
        store="s",
        embedder="e",
        storage={"region": "eu-west-1", "credentials": {"AWS_SECRET_ACCESS_KEY": "BACKUP_SECRET"}},
    )
    found = config.runs_on.environment()
    assert (found["AWS_REGION"], found["AWS_SECRET_ACCESS_KEY"]) == ("eu-west-1", "hidden-from-everybody")
    assert "hidden-from-everybody" not in config.runs_on.model_dump_json() + config.model_dump_json()


def test_other_clouds_get_the_same_patience_and_no_settings_of_s3(monkeypatch):
    for name, value in (USUAL | {"AWS_ENDPOINT_URL": "http://host"}).items():
        monkeypatch.setenv(name, value)
    assert clients.lance_options("gs://bucket/store").keys() == clients.lance_options("az://c/store").keys()
    assert not [name for name in clients.lance_options("gs://bucket/store") if name.startswith("aws")]
    assert clients.lance_options("/folder") == clients.lance_options("file:///folder") == {}
