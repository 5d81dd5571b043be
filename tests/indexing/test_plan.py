"""Laws of a plan: its figures are those of the build, limits are kept or refused up front, and its parts add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.api.indexing import build
from headwater.cli.options import parse_bytes
from headwater.core.errors import StoreError, UsageError
from headwater.core.spec import Column
from headwater.data.corpus import Corpus
from headwater.index.info import disk_bytes
from headwater.indexing import plan as planning
from headwater.indexing.plan import BuildPlan, Limits, plan_build, readable_bytes
from headwater.indexing.probe import Memory, Speed, share_of_characters, survey
from oracles.fake_method import corpus_of, fake_bound, fake_build, fake_method, records
from zoo import tiny_loaded

METHOD = fake_method(columns=(Column("vector", 2048), Column("wide", 30, "float32")))
ROWS = 300


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of(records(ROWS))


def plan(corpus: Corpus, limits: Limits | None = None, **options: Any) -> BuildPlan:
    return plan_build(corpus, fake_bound(METHOD, tokens_per_batch=8192), limits=limits, **options)


def lengthy(count: int) -> list[dict[str, Any]]:
    return [{"id": f"row-{i}", "text": f"text {i} " + "word " * (i % 40)} for i in range(count)]


def test_disk_is_that_of_the_build_within_five_hundredths(tmp_path: Path) -> None:
    for i, (rows, options) in enumerate(
        [(records(ROWS), {}), (records(ROWS), {"code": "int8"}), (lengthy(900), {"code": "sign:256"})]
    ):
        corpus = corpus_of(rows)
        expected = plan(corpus, **options).disk
        fake_build(tmp_path / f"{i}.lance", rows, METHOD, **options)
        assert expected == pytest.approx(disk_bytes(str(tmp_path / f"{i}.lance")), rel=0.05)


def test_rows_and_tokens_are_counted(corpus: Corpus) -> None:
    found = plan(corpus)
    tokenized = fake_bound(METHOD).tokenize(list(corpus), "train")
    assert found.rows == ROWS
    assert found.tokens == pytest.approx(sum(len(row.ids) for row in tokenized), rel=0.02)
    assert found.seconds > 0
    assert found.memory > 10 * 2**20
    assert found.disk_by_code["int8"] < found.disk_by_code["float16"]


def test_a_sample_is_uniform_and_the_same_every_time() -> None:
    corpus = corpus_of(lengthy(2000))
    first, again = survey(corpus, 100), survey(corpus, 100)
    assert first == again
    ordinals = [row.ordinal for row in first.sample]
    assert ordinals == sorted(ordinals)
    assert len(set(ordinals)) == 100
    assert 800 < np.mean(ordinals) < 1200
    assert first.characters == sum(len(row.text or "") for row in corpus)
    assert share_of_characters(first) == pytest.approx(20, rel=0.15)
    assert survey(corpus, 5000).sample == tuple(corpus)


def test_time_adds_up_over_lengths() -> None:
    speed = Speed(np.array([10.0, 100.0]), np.array([1e-3, 2e-3]))
    assert speed.seconds(np.array([10, 100])) == pytest.approx(0.01 + 0.2)
    assert speed.seconds(np.array([55])) == pytest.approx(55 * 1.5e-3)
    assert speed.seconds(np.array([1000])) == pytest.approx(2.0)


def test_what_needs_too_much_disk_is_refused_with_what_would_fit(corpus: Corpus, tmp_path: Path) -> None:
    whole = plan(corpus)
    assert plan(corpus, Limits(disk=round(1.01 * whole.disk))).disk == pytest.approx(whole.disk, rel=0.01)
    with pytest.raises(StoreError, match=r"would take .*--code int8 takes"):
        plan(corpus, Limits(disk=whole.disk_by_code["int8"] + 20_000))
    with pytest.raises(StoreError, match="index fewer rows"):
        plan(corpus, Limits(disk=1000))


def test_batches_are_sized_to_the_memory_allowed(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """With memory that grows by 1 MiB a token over 100 MiB, as the probe of some model would find."""
    monkeypatch.setattr(planning, "measure_memory", lambda *_, **__: Memory(100.0 * 2**20, 2.0**20, 8192))
    stored = ROWS * (4096 + 120)
    for allowed, tokens in ((100, 8192), (8392, 8192), (8191, 4096), (2300, 2048)):
        limits = None if allowed == 100 else Limits(memory=allowed * 2**20 + stored)
        assert plan(corpus, limits).tokens_per_batch == tokens
    monkeypatch.setattr(planning, "measure_memory", lambda *_, **__: Memory(3.0 * 2**40, 0.0, 8192))
    with pytest.raises(StoreError, match=r"even batches of 64 tokens take 3.0 TiB, 2.0 GiB are allowed"):
        plan(corpus, Limits(memory=2**31))


def test_a_build_that_goes_on_keeps_its_batches(tmp_path: Path) -> None:
    made = {"model": tiny_loaded("llama"), "data": records(20), "settings": {"preset": "small"}, "resume": True}
    build(tmp_path / "a.lance", tokens_per_batch=512, **made)
    found = build(tmp_path / "a.lance", tokens_per_batch=8192, max_disk=1, **made)
    assert found.manifest.plan.tokens_per_batch == 512
    with pytest.raises(StoreError, match="--max-disk"):
        build(tmp_path / "b.lance", max_disk=1, **made)
    assert not (tmp_path / "b.lance").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1.5GiB", 3 * 2**29), ("800M", 800 * 2**20), ("2 GB", 2 * 10**9), ("500", 500), ("7b", 7), ("1TiB", 2**40)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text, where="x") == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "1.5.2G", "G", "1PiB", "inf", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of bytes"):
        parse_bytes(text, where="x")


def test_sizes_are_written() -> None:
    assert [readable_bytes(n) for n in (10, 2048, 3 * 2**29, 2**41)] == ["10 bytes", "2.0 KiB", "1.5 GiB", "2.0 TiB"]
