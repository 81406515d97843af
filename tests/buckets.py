"""An S3-compatible server on this machine, for tests of stores in buckets: moto, or the real one that the
variable SLOWWAVE_S3 names (`ceph`)."""

import contextlib
import os
import uuid
from collections.abc import Iterator

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@contextlib.contextmanager
def serving() -> Iterator[dict[str, str]]:
    """A server while the context lasts; yields the environment in which its buckets are found."""
    if os.environ.get("SLOWWAVE_S3") == "ceph":
        from tests.ceph import serving_ceph

        with serving_ceph(ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]) as endpoint:
            yield ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield ENVIRONMENT | {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}
    finally:
        server.stop()


@contextlib.contextmanager
def found_by(environment: dict[str, str]) -> Iterator[None]:
    """This process and what it starts find the server while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def client(environment: dict[str, str]):
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def new_bucket(environment: dict[str, str], *, is_versioned: bool, **options) -> str:
    """The name of an empty bucket."""
    s3, name = client(environment), f"bucket-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name, **options)
    if is_versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def all_versions(environment: dict[str, str], name: str) -> Iterator[tuple[str, bytes]]:
    """(key, content) of every version of every object of a bucket, overwritten and deleted ones included."""
    s3 = client(environment)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        for one in page.get("Versions", ()):
            body = s3.get_object(Bucket=name, Key=one["Key"], VersionId=one["VersionId"])["Body"]
            yield one["Key"], body.read()


def refusing(monkeypatch, operation: str) -> None:
    """From now on the server answers one operation as it does who has no permission."""
    call = botocore.client.BaseClient._make_api_call

    def denied(self, name, arguments):
        if name == operation:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, name)
        return call(self, name, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", denied)
