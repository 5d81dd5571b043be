"""An index on an object store lives the same life: against a local S3-compatible server, and as file:// URIs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.core.errors import StoreError
from headwater.index.checks import check_index
from headwater.index.fragments import commit_fragments
from headwater.index.info import describe
from headwater.index.store import open_index
from headwater.index.upkeep import changing, compact
from headwater.indexing import blocks
from headwater.indexing.maintain import add, delete, recompute
from headwater.indexing.quantise import quantise_index
from oracles.fake_method import corpus_of, fake_build, fake_session, records

BUCKET = "indexes"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("flask", reason="the S3 server of moto needs it: moto[server]")
    from moto.server import ThreadedMotoServer

    started = ThreadedMotoServer(port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host.replace('0.0.0.0', '127.0.0.1')}:{port}"
    started.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import boto3

    settings = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3", endpoint_url=server).create_bucket(Bucket=BUCKET)
    yield made
    made.objects.all().delete()
    made.delete()


@pytest.fixture(autouse=True)
def blocks_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 8)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 8)


def whole_life(place: Callable[[str], str], local: Path) -> None:
    path = place("a.lance")
    index = fake_build(path, records(30))
    assert describe(index)["bytes_on_disk"] is None
    assert index.dataset.to_table() == fake_build(local / "a.lance", records(30)).dataset.to_table()
    with pytest.raises(StoreError, match="something is here already"):
        fake_build(path, records(30))
    assert add(fake_session(index), corpus_of(records(10, 25))).rows == 5
    assert delete(index, ids=["row-3"]) == 1
    compacted = compact(index)
    assert (compacted.rows, compacted.bytes_before) == (34, None)
    assert check_index(path) == []
    assert recompute(fake_session(open_index(path)), 34) == []
    coded = quantise_index(open_index(path), place("b.lance"), code="int8")
    assert (coded.count, check_index(coded.path)) == (34, [])


def test_an_index_lives_its_life_on_s3(bucket: Any, tmp_path: Path) -> None:
    whole_life(lambda name: f"s3://{BUCKET}/{name}", tmp_path)
    assert not any(b"question 3?" in found.get()["Body"].read() for found in bucket.objects.filter(Prefix="a.lance"))


def test_an_index_lives_its_life_as_a_file_uri(tmp_path: Path) -> None:
    (tmp_path / "uris").mkdir()
    whole_life(lambda name: (tmp_path / "uris" / name).as_uri(), tmp_path)


def test_an_interrupted_build_goes_on_on_s3(bucket: Any, tmp_path: Path) -> None:
    def stop(done: int, total: int | None, tokens: int) -> None:
        raise InterruptedError

    path = f"s3://{BUCKET}/half.lance"
    with pytest.raises(InterruptedError):
        fake_build(path, records(30), on_progress=stop)
    assert [fault.kind for fault in check_index(path)] == ["unfinished"]
    index = fake_build(path, records(30), resume=True)
    assert index.dataset.to_table() == fake_build(tmp_path / "a.lance", records(30)).dataset.to_table()


def test_of_two_writers_on_s3_one_is_refused(bucket: Any) -> None:
    path = f"s3://{BUCKET}/two.lance"
    fake_build(path, records(20))
    first, second = open_index(path), open_index(path)

    def overtaken() -> None:
        with changing(first, "adding"):
            assert add(fake_session(second), corpus_of(records(10, 20))).rows == 10
            commit_fragments(first, [])

    with pytest.raises(StoreError, match="another process has written"):
        overtaken()
    assert open_index(path).count == 30
    assert add(fake_session(second), corpus_of(records(10, 20))).rows == 0
    assert check_index(path) == []


def test_what_is_not_there_is_said_in_one_line(bucket: Any) -> None:
    with pytest.raises(StoreError, match="there is no index here"):
        open_index(f"s3://{BUCKET}/none.lance")
    with pytest.raises(StoreError) as caught:
        open_index("s3://no-such-bucket/a.lance")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_memory_uris_do_not_last(tmp_path: Path) -> None:
    """Each opening of a memory:// URI begins anew, so an index cannot be kept there; it fails, and says so."""
    with pytest.raises(StoreError, match="there is no index here"):
        fake_build("memory://here/a.lance", records(4))  # type: ignore[arg-type]
