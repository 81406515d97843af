"""The fake S3 server of the tests answers as moto does, and with SLOWWAVE_S3 as a real one, wherever this
project asks it anything."""

import os
import threading

import obstore
import pytest
from botocore.exceptions import ClientError
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from tests.buckets import client, new_bucket, serving
from tests.s3_server import serving_fake


@pytest.fixture(scope="module", params=["reference", "fake"])
def environment(request):
    if request.param == "reference":
        with serving() as found:
            yield found
    else:
        with serving_fake() as server:
            yield server.environment


@pytest.fixture
def name(environment):
    return new_bucket(environment, is_versioned=False)


@pytest.fixture
def s3(environment):
    return client(environment)


@pytest.fixture
def store(environment, name):
    settings = {key.lower(): value for key, value in environment.items()}
    return S3Store(name, config=settings, client_options={"allow_http": True})


def code(error: pytest.ExceptionInfo[ClientError]) -> int:
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_put_on_condition_that_nothing_is_there_is_refused_where_something_is(s3, store, name):
    obstore.put(store, "a", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "a", b"2", mode="create")
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=name, Key="a", Body=b"3", IfNoneMatch="*")
    assert code(refused) == 412
    assert s3.get_object(Bucket=name, Key="a")["Body"].read() == b"1"


def test_of_many_that_create_one_object_at_once_one_succeeds(store):
    won, together = [], threading.Barrier(8)

    def create(number: int) -> None:
        together.wait()
        try:
            obstore.put(store, "a", str(number).encode(), mode="create")
        except AlreadyExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bytes(obstore.get(store, "a").bytes())] == [str(number).encode() for number in won]


@pytest.mark.skipif(
    "SLOWWAVE_S3" in os.environ, reason="Ceph 16 knows no If-Match of puts; nothing here asks it"
)
def test_a_put_on_condition_that_an_object_is_unchanged_is_refused_where_it_has_changed(s3, name):
    old = s3.put_object(Bucket=name, Key="a", Body=b"1")["ETag"]
    s3.put_object(Bucket=name, Key="a", Body=b"2", IfMatch=old)
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=name, Key="a", Body=b"3", IfMatch=old)
    assert code(refused) == 412
    with pytest.raises(ClientError) as missing:
        s3.put_object(Bucket=name, Key="b", Body=b"3", IfMatch=old)
    assert code(missing) == 404
    assert s3.get_object(Bucket=name, Key="a")["Body"].read() == b"2"


@pytest.mark.parametrize(
    ("range", "expected"),
    [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=8-99", b"89")],
)
def test_a_range_is_that_part(s3, name, range, expected):
    s3.put_object(Bucket=name, Key="a", Body=b"0123456789")
    found = s3.get_object(Bucket=name, Key="a", Range=range)
    assert found["Body"].read() == expected
    start = int.from_bytes(expected[:1], "big") - ord("0")
    assert found["ContentRange"] == f"bytes {start}-{start + len(expected) - 1}/10"


def test_a_range_behind_the_end_is_refused(s3, name):
    s3.put_object(Bucket=name, Key="a", Body=b"0123456789")
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=name, Key="a", Range="bytes=10-")
    assert code(refused) == 416


def test_what_is_not_there_is_404(s3, name):
    for call in (s3.get_object, s3.head_object):
        with pytest.raises(ClientError) as missing:
            call(Bucket=name, Key="a")
        assert code(missing) == 404
    with pytest.raises(ClientError) as missing:
        s3.list_objects_v2(Bucket="not-there")
    assert code(missing) == 404


def test_an_upload_in_parts_appears_whole_at_its_end(s3, store, name):
    data = bytes(range(256)) * 60_000
    obstore.put(
        store, "a", data, use_multipart=True, chunk_size=5 << 20, attributes={"Content-Type": "text/x"}
    )
    found = s3.head_object(Bucket=name, Key="a")
    assert (found["ContentLength"], found["ContentType"]) == (len(data), "text/x")
    upload = s3.create_multipart_upload(Bucket=name, Key="b")["UploadId"]
    part = s3.upload_part(Bucket=name, Key="b", UploadId=upload, PartNumber=1, Body=b"x")
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=name)["Contents"]] == ["a"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=name, Key="b", UploadId=upload, MultipartUpload=parts)
    assert s3.get_object(Bucket=name, Key="b")["Body"].read() == b"x"
    upload = s3.create_multipart_upload(Bucket=name, Key="c")["UploadId"]
    s3.abort_multipart_upload(Bucket=name, Key="c", UploadId=upload)
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=name)["Contents"]] == ["a", "b"]


ODD = "a/with space & <ü>+%25.txt"


def test_a_list_has_every_key_in_order_page_by_page(s3, name):
    keys = ["a", "a/b", "a/b/c", ODD, "b", "ü", "z/1"]
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=name, PaginationConfig={"PageSize": 2})
    listed = [(one["Key"], one["Size"]) for page in pages for one in page["Contents"]]
    assert listed == [(key, len(key.encode())) for key in sorted(keys)]
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=name, Prefix="a/b")["Contents"]] == [
        "a/b",
        "a/b/c",
    ]
    after = s3.list_objects_v2(Bucket=name, StartAfter="b")["Contents"]
    assert [one["Key"] for one in after] == ["z/1", "ü"]
    assert "Contents" not in s3.list_objects_v2(Bucket=name, Prefix="none")


def test_a_list_by_folders_names_each_once(s3, name):
    for key in ("f/1", "f/2", "f/g/1", "f/g/2", "f/h/1", "top"):
        s3.put_object(Bucket=name, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=name, Prefix="f/", Delimiter="/", PaginationConfig={"PageSize": 1}
    )
    files, folders = [], []
    for page in pages:
        files += [one["Key"] for one in page.get("Contents", ())]
        folders += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
    assert (files, folders) == (["f/1", "f/2"], ["f/g/", "f/h/"])


def test_what_is_deleted_is_gone_and_what_was_not_there_is_no_error(s3, store, name):
    for key in ("a", "b", "c", ODD):
        s3.put_object(Bucket=name, Key=key, Body=b"x")
    obstore.delete(store, ["a", "b", "never"])
    s3.delete_object(Bucket=name, Key="c")
    s3.delete_object(Bucket=name, Key="c")
    answer = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": ODD}, {"Key": "never"}]})
    assert "Errors" not in answer
    assert "Contents" not in s3.list_objects_v2(Bucket=name)


def test_a_copy_is_as_the_object_was(s3, store, name):
    s3.put_object(Bucket=name, Key=ODD, Body=b"x", ContentType="text/x", Metadata={"of": "me"})
    s3.copy_object(Bucket=name, Key="b", CopySource={"Bucket": name, "Key": ODD})
    found = s3.get_object(Bucket=name, Key="b")
    assert (found["Body"].read(), found["ContentType"], found["Metadata"]) == (b"x", "text/x", {"of": "me"})
    obstore.copy(store, "b", "c")
    assert bytes(obstore.get(store, "c").bytes()) == b"x"


def test_an_object_is_read_on_condition(s3, name):
    etag = s3.put_object(Bucket=name, Key="a", Body=b"x")["ETag"]
    assert s3.get_object(Bucket=name, Key="a", IfMatch=etag)["Body"].read() == b"x"
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=name, Key="a", IfMatch='"other"')
    assert code(refused) == 412
    with pytest.raises(ClientError) as same:
        s3.get_object(Bucket=name, Key="a", IfNoneMatch=etag)
    assert code(same) == 304
