"""What does not show in a listing: older versions in a bucket, uploads, files of killed writes."""

import pytest

from cluster.forget import leftovers
from cluster.store.files import Files
from tests.buckets import all_versions, client, new_bucket, refusing, serving


@pytest.fixture(scope="module")
def server():
    with serving() as environment:
        yield environment


@pytest.fixture
def environment(server, monkeypatch):
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def bucket(environment):
    return new_bucket(environment, is_versioned=True)


def contents(environment, bucket):
    return sorted(content.decode() for _, content in all_versions(environment, bucket))


def fill(uri):
    """Overwritten, deleted and standing files."""
    files = Files(uri, "staging")
    for content in (b"secret of a", b"new of a"):
        files.put("a", content)
    files.put("b", b"secret of b")
    files.delete(["b"])
    files.put("c", b"c")
    return files


def test_older_versions_in_a_bucket_are_found_and_removed(environment, bucket):
    files = fill(uri := f"s3://{bucket}/store")
    (left,) = leftovers.look(uri).left
    assert "2 older versions of objects" in left and "s3:DeleteObjectVersion" in left
    # With what marks one of them as deleted.
    assert leftovers.remove(uri) == 3
    assert contents(environment, bucket) == ["c", "new of a"]
    assert (files.get("a"), files.get("b"), files.get("c")) == (b"new of a", None, b"c")
    assert leftovers.look(uri) == leftovers.Leftovers()


def test_what_lies_beside_the_store_in_its_bucket_is_left_alone(environment, bucket):
    fill(f"s3://{bucket}/store-2")
    Files(f"s3://{bucket}/store", "lease").put("1.json", b"old")
    Files(f"s3://{bucket}/store", "lease").put("1.json", b"renewed at any time")
    before = contents(environment, bucket)
    assert leftovers.look(f"s3://{bucket}/store") == leftovers.Leftovers()
    assert leftovers.remove(f"s3://{bucket}/store") == 0
    assert contents(environment, bucket) == before


def test_a_bucket_without_versions_has_none(environment):
    fill(uri := f"s3://{new_bucket(environment, is_versioned=False)}/store")
    assert leftovers.look(uri) == leftovers.Leftovers()


def test_an_upload_that_was_never_completed_is_found_and_removed(environment, bucket):
    s3, key = client(environment), {"Bucket": bucket, "Key": "store/turns.lance/data/1.lance"}
    upload = s3.create_multipart_upload(**key)["UploadId"]
    s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=b"secret")
    uri = f"s3://{bucket}/store"
    assert "1 uploads that were never completed" in leftovers.look(uri).left[0]
    assert leftovers.remove(uri) == 1
    assert leftovers.look(uri) == leftovers.Leftovers()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_file_that_is_deleted_for_good_has_no_versions(environment, bucket):
    files = Files(f"s3://{bucket}/store", "commit")
    for number in range(3):
        files.put("intent.json", f"secret {number}".encode())
        files.put("intent.json-2", b"another")
    files.delete(["intent.json"])
    files.put("intent.json", b"secret again")
    leftovers.delete_for_good(files, "intent.json")
    assert files.get("intent.json") is None
    assert set(contents(environment, bucket)) == {"another"}


def test_versions_that_may_not_be_deleted_are_said_to_be_left(environment, bucket, monkeypatch):
    files = fill(uri := f"s3://{bucket}/store")
    refusing(monkeypatch, "DeleteObjects")
    assert leftovers.remove(uri) == 0
    assert "2 older versions" in leftovers.look(uri).left[0]
    leftovers.delete_for_good(files, "a")
    assert files.get("a") is None


def test_locked_versions_stay_and_stay_hidden(environment):
    bucket = new_bucket(environment, is_versioned=True, ObjectLockEnabledForBucket=True)
    files = fill(uri := f"s3://{bucket}/store")
    s3, key = client(environment), "store/_slowwave/staging/b"
    versions = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    s3.put_object_legal_hold(
        Bucket=bucket, Key=key, VersionId=versions[0]["VersionId"], LegalHold={"Status": "ON"}
    )
    leftovers.remove(uri)
    assert files.get("b") is None
    assert "older versions of objects" in leftovers.look(uri).left[0]


def test_what_cannot_be_listed_is_said_to_be_unknown(environment, bucket, monkeypatch):
    fill(uri := f"s3://{bucket}/store")
    refusing(monkeypatch, "ListObjectVersions")
    found = leftovers.look(uri)
    assert found.left == [] and len(found.not_searched) == 1
    assert "older versions of objects cannot be listed (ClientError" in found.not_searched[0]
    assert "cannot be listed from here" in leftovers.look("gs://bucket/store").not_searched[0]
    assert leftovers.remove("gs://bucket/store") == 0


@pytest.mark.parametrize(
    "path", ["_slowwave/tmp/commit-1", "_slowwave/runs/a.json#1", "turns.lance/data/b#12"]
)
def test_what_a_killed_write_has_left_in_a_folder_is_found_and_removed(tmp_path, path):
    left = tmp_path / path
    left.parent.mkdir(parents=True)
    left.write_text("secret")
    (kept := tmp_path / "_slowwave" / "tmp" / "lease-1").parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("of a job that waits")
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        assert [item.partition(":")[0] for item in leftovers.look(uri).left] == [path]
    assert leftovers.remove(str(tmp_path)) == 1
    assert not left.exists() and kept.exists()
    assert leftovers.look(str(tmp_path)) == leftovers.Leftovers()
