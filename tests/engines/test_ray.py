"""Laws of the Ray engine on a cluster of two nodes: the order, the bits, deaths of workers, and clear errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.api.indexing import build
from headwater.core.errors import EngineError, NumericError, StoreError, UsageError
from headwater.engines.blocks import Block, cut
from headwater.engines.catalog import EngineChoice
from headwater.engines.local import Local
from headwater.engines.ray_pool import RayPool
from headwater.index.checks import check_index
from oracles.counted_work import Squares
from zoo import tiny_loaded, tiny_tokenizer, zoo

TESTS = Path(__file__).parents[1]
ROWS = [{"id": f"r{i}", "prompt": f"question {i}?", "response": "so " * (i % 9) + str(i * i)} for i in range(44)]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A local S3-compatible server with the bucket `ray`."""
    pytest.importorskip("flask", reason="the S3 server of moto needs it: moto[server]")
    import boto3
    from moto.server import ThreadedMotoServer

    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    address = "http://{}:{}".format(*started.get_host_and_port())
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.resource("s3", endpoint_url=address, **keys).create_bucket(Bucket="ray")
    yield address
    started.stop()


@pytest.fixture(scope="module")
def cluster(server: str) -> Iterator[Any]:
    """Two nodes of two CPUs each, all on this machine, and a connection of this process to them."""
    ray = pytest.importorskip("ray", reason="the extra headwater[ray]")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # the workers get the environment of their node
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))
        for name, value in {
            "AWS_ENDPOINT_URL": server,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        plain = {"worker_niceness": 0}  # on a busy machine workers of the lowest priority hardly start
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "_system_config": plain})
        nodes.add_node(num_cpus=2)
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def test_blocks_are_committed_in_order_whatever_ends_first_or_dies(cluster: Any, tmp_path: Path) -> None:
    drawn: list[int] = []
    work = Squares(tmp_path, pause=0.01, slow=(0, 3), dies_once=(2, 5))

    def watched() -> Iterator[Block[int]]:
        for block in cut(range(61), 5):
            drawn.append(block.number - len(work.orders))
            yield block

    told: list[int] = []
    RayPool(workers=3).run(watched(), work, lambda receipt: told.append(receipt.block))
    assert work.orders == told == list(range(13))
    assert work.committed == [i * i for i in range(61)]
    assert max(drawn) <= 6, "the window is bounded"
    makers = {path.name.split("-")[1] for path in tmp_path.glob("*.txt")}
    assert len(makers) >= 2, "several processes computed"
    assert {path.name for path in tmp_path.glob("died-*")} == {"died-2", "died-5"}


def test_a_run_goes_on_when_all_workers_wait_for_the_first_block(cluster: Any, tmp_path: Path) -> None:
    """While one worker computes block 0, the other fills the window; then nothing is under way until a commit."""
    work = Squares(tmp_path, pause=0.02, slow=(0, 4, 8))
    RayPool(workers=2).run(cut(range(24), 2), work)
    assert work.orders == list(range(12))


def test_a_full_disk_of_a_worker_names_the_block_and_keeps_those_before_it(cluster: Any, tmp_path: Path) -> None:
    work = Squares(tmp_path, full=(3,))
    with pytest.raises(StoreError, match=r"block 3 \(rows 16 to 20\), on .*: the disk is full \(make room\)"):
        RayPool(workers=2).run(cut(range(61), 5), work)
    assert work.orders == [0, 1, 2]


def test_a_block_that_always_kills_its_worker_is_named_and_those_before_it_are_kept(
    cluster: Any, tmp_path: Path
) -> None:
    work = Squares(tmp_path, dies=(4,), slow=(3,), pause=0.02)
    with pytest.raises(EngineError, match=r"3 workers died of block 4 \(rows 21 to 25\).*--resume"):
        RayPool(workers=2).run(cut(range(61), 5), work)
    assert work.orders == [0, 1, 2, 3]


def test_a_workers_own_error_arrives_as_it_was(cluster: Any, tmp_path: Path) -> None:
    work = Squares(tmp_path, fails=(3, 4))
    with pytest.raises(NumericError, match=r"here: the block 3 is not finite \(do otherwise\)"):
        RayPool(workers=2).run(cut(range(61), 5), work)
    assert work.orders == [0, 1, 2]


def test_two_workers_write_to_an_object_store_what_a_local_build_writes(cluster: Any, tmp_path: Path) -> None:
    zoo()["llama"]().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    made = {"model": tmp_path / "model", "data": tmp_path / "rows.jsonl", "settings": {"preset": "small"}}
    made |= {"block_rows": 6, "loading": {"device": "cpu"}}
    local = build(tmp_path / "a.lance", **made)
    spread = build("s3://ray/b.lance", engine=RayPool(workers=2), **made)
    assert local.dataset.to_table() == spread.dataset.to_table()
    assert local.manifest.tally == spread.manifest.tally
    assert check_index(spread.path) == []


def test_what_cannot_be_had_is_refused_in_one_line(cluster: Any, tmp_path: Path) -> None:
    for pool, message in (
        (RayPool(workers=5), "5 workers ask for 5 CPUs, and the cluster has 4"),
        (RayPool(workers=2, gpus_per_worker=1), "2 workers ask for 2 GPUs, and the cluster has 0"),
    ):
        with pytest.raises(UsageError, match=message):
            pool.run(cut(range(4), 2), Squares(tmp_path))
    with pytest.raises(UsageError, match="in the memory of this process"):
        build(
            tmp_path / "m.lance", model=tiny_loaded("llama"), data=ROWS, settings={"preset": "small"}, engine=RayPool(1)
        )
    assert not (tmp_path / "m.lance").exists()


def test_an_address_where_nothing_answers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EngineError, match=r"no Ray cluster answers at '127.0.0.1:9'.*ray start --head"):
        RayPool(address="127.0.0.1:9").run(cut(range(4), 2), Squares(tmp_path))


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed \(pip install 'headwater\[ray\]'\)"):
        RayPool().run(cut(range(4), 2), Squares(tmp_path))


def test_engines_are_chosen_by_name() -> None:
    assert EngineChoice().open() == Local()
    assert EngineChoice("ray", workers=3, address="a:1").open() == RayPool(3, "a:1")
    with pytest.raises(UsageError, match="did you mean 'local'"):
        EngineChoice("locol").open()
    with pytest.raises(UsageError, match=r"--gpus-per-worker.*--engine ray"):
        EngineChoice(gpus_per_worker=2).open()
