"""Laws of vector codes: scores are those of what a code stands for, errors shrink as they should, and are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import NumericError, UsageError
from headwater.core.spec import LEVEL_BITS, Column
from headwater.index.checks import check_index
from headwater.index.info import describe
from headwater.indexing import blocks
from headwater.indexing.maintain import recompute
from headwater.search.codes import coded, decode, encode, read_vectors, transform
from headwater.search.products import by_integers, by_tables, product
from headwater.search.scan import score_all, top_k
from oracles.fake_method import fake_build, fake_method, fake_session, records

CODES = ["int8", "sign:64", "sign:200", "sign:1024", "sign:4096", "int2:1024", "int2:200", "int4:1024", "int4:4096"]


def column(code: str, dim: int = 100) -> Column:
    kind, _, bits = code.partition(":")
    return Column("vector", dim, kind, bits=int(bits or 0))  # type: ignore[arg-type]


def normal(rows: int, dim: int = 100, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def estimates(x: torch.Tensor, q: torch.Tensor, c: Column) -> torch.Tensor:
    stored = encode(x, c)
    return product(q, c)(torch.from_numpy(stored[c.name])) * torch.from_numpy(stored[c.scale or ""])


@pytest.mark.parametrize("code", CODES)
def test_a_score_is_that_of_the_decoded_row(code: str) -> None:
    x, q, c = normal(20), normal(5, seed=1), column(code)
    expected = q @ decode(encode(x, c), c).T
    assert torch.allclose(estimates(x, q, c), expected, atol=1e-3 if code == "int8" else 0.02 * float(expected.std()))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([8, 64, 200, 1032]), st.integers(0, 99))
def test_integers_and_tables_are_exact_products_of_whole_numbers(rows, queries, bits, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(-127, 128, (queries, bits), generator=generator, dtype=torch.int8)
    codes = torch.randint(0, 256, (rows, bits // 8), generator=generator, dtype=torch.uint8)
    signs = torch.from_numpy(np.unpackbits(codes.numpy(), axis=1, bitorder="little").astype(np.int64)) * 2 - 1
    expected = (levels.long() @ signs.T).float()
    assert torch.equal(by_integers(levels)(codes), expected)
    assert torch.equal(by_tables(levels)(codes), expected)


@pytest.mark.parametrize("code", ["sign:4096", "int2:4096", "int4:4096"])
def test_codes_give_the_same_bits_for_any_number_of_threads_and_queries_and_rows_at_once(code: str) -> None:
    x, q, c = normal(3000), normal(7, seed=1), column(code)
    stored = torch.from_numpy(encode(x, c)[c.name])
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(product(q, c)(stored))
    torch.set_num_threads(before)
    alone = torch.cat([product(q[i : i + 1], c)(stored[j : j + 1000]) for i in range(7) for j in range(0, 3000, 1000)])
    assert torch.equal(alone.view(7, 3000), found[0])
    levels = torch.round(transform(q.double(), c) / transform(q.double(), c).abs().amax(1, keepdim=True) * 127)
    elsewhere = by_tables(levels.to(torch.int8), LEVEL_BITS[c.dtype])(stored)  # what other devices compute
    assert torch.equal(elsewhere, by_integers(levels.to(torch.int8), LEVEL_BITS[c.dtype])(stored))
    assert all(torch.equal(one, found[0]) for one in found)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.sampled_from([16, 200, 1032]), st.sampled_from([2, 4]))
def test_levels_of_more_bits_are_exact_products_of_whole_numbers_too(rows, queries, bits, each) -> None:
    generator = torch.Generator().manual_seed(rows)
    levels = torch.randint(-127, 128, (queries, bits // each), generator=generator, dtype=torch.int8)
    codes = torch.randint(0, 256, (rows, bits // 8), generator=generator, dtype=torch.uint8)
    unpacked = [[(byte >> low) % (1 << each) for byte in row for low in range(0, 8, each)] for row in codes.tolist()]
    expected = (levels.long() @ (2 * torch.tensor(unpacked) + 1 - (1 << each)).T).float()
    assert torch.equal(by_integers(levels, each)(codes), expected)
    assert torch.equal(by_tables(levels, each)(codes), expected)


def test_long_codes_are_exact_where_float32_would_not_be() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(120, 128, (3, 1 << 15), generator=generator, dtype=torch.int8)
    codes = torch.randint(238, 256, (4, 1 << 14), generator=generator, dtype=torch.uint8)
    unpacked = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1).long() * 2 - 15
    expected = (levels.long() @ unpacked.T).float()  # some 50 million each
    assert torch.equal(by_integers(levels, 4)(codes), expected)
    assert torch.equal(by_tables(levels, 4)(codes), expected)


MATRICES = Column("vector", 300, "factors", matrices=((16, 16), (1, 32)), rank=2)


def test_factors_are_the_best_approximation_and_short_matrices_are_whole() -> None:
    x = normal(9, 300)
    x[:, 288:] = 0  # places that no matrix has
    whole = x[:, :256].view(9, 16, 16)
    decay = torch.linalg.svd(whole)
    whole.copy_((decay.U * 0.4 ** torch.arange(16)) @ decay.Vh)
    found = decode(encode(x, MATRICES), MATRICES)
    best = (decay.U[:, :, :2] * 0.4 ** torch.arange(2)) @ decay.Vh[:, :2]
    assert torch.allclose(found[:, :256].view(9, 16, 16), best, atol=5e-3)
    assert torch.equal(found[:, 256:], x[:, 256:].half().float())


def test_products_with_factors_are_those_of_the_decoded_rows() -> None:
    x, q = normal(200, 300), normal(3, 300, seed=1)
    stored = encode(x, MATRICES)
    found = product(q, MATRICES)(torch.from_numpy(stored["vector"]))
    assert torch.allclose(found, q @ decode(stored, MATRICES).T, atol=1e-3)
    assert MATRICES.row_bytes == 2 * stored["vector"].shape[1] == 2 * (2 * 32 + 32)


@pytest.mark.parametrize("code", CODES)
def test_codes_follow_the_size_of_a_row_and_nothing_of_its_neighbours(code: str) -> None:
    x, q, c = normal(20), normal(5, seed=1), column(code)
    assert torch.allclose(estimates(8 * x, q, c), 8 * estimates(x, q, c), rtol=1e-5)
    assert torch.allclose(estimates(x[3:4], q, c), estimates(x, q, c)[:, 3:4], rtol=1e-4, atol=1e-4)


def test_int8_errs_by_half_a_step() -> None:
    x, c = normal(50), column("int8")
    step = x.abs().amax(dim=1, keepdim=True) / 127
    assert ((decode(encode(x, c), c) - x).abs() <= 0.501 * step).all()


def test_a_row_scores_itself_right_where_no_bit_is_left_out() -> None:
    x = normal(50, 128)
    for code in ("sign:128", "sign:512", "int2:256", "int4:512"):
        assert torch.allclose(estimates(x, x, column(code, 128)).diagonal(), x.square().sum(1), rtol=5e-3)


def test_sign_codes_have_no_bias_and_err_as_one_over_the_root_of_their_bits() -> None:
    """Over many directions at a fixed angle, in units of ‖q‖‖x‖: mean error near 0, spread near √(π/2 − 1) / √bits."""
    x = torch.nn.functional.normalize(normal(2000, 256), dim=1)
    other = torch.nn.functional.normalize(normal(2000, 256, seed=1), dim=1)
    for cosine in (0.0, 0.6):
        q = cosine * x + (1 - cosine**2) ** 0.5 * torch.nn.functional.normalize(
            other - (other * x).sum(1, keepdim=True) * x, dim=1
        )
        for bits in (256, 2048, 8192):
            c = column(f"sign:{bits}", 256)
            error = (q * decode(encode(x, c), c)).sum(1) - cosine
            spread = ((1 - cosine**2) * (np.pi / 2 - 1) / bits) ** 0.5
            assert abs(error.mean()) < 5 * spread / 2000**0.5 + 0.02 * spread
            assert 0.85 * spread < error.std() < 1.15 * spread


def test_more_bits_find_more_of_the_exact_top() -> None:
    x, q = torch.nn.functional.normalize(normal(3000, 256), dim=1), normal(40, 256, seed=1)
    exact = (q @ x.T).topk(10, dim=1).indices
    recall = {}
    for code in ("sign:256", "sign:1024", "sign:8192", "int8"):
        found = estimates(x, q, column(code, 256)).topk(10, dim=1).indices
        recall[code] = (exact[:, :, None] == found[:, None, :]).any(2).float().mean().item()
    assert recall["sign:256"] < recall["sign:1024"] < recall["sign:8192"] < recall["int8"]
    assert recall["sign:8192"] > 0.75
    assert recall["int8"] > 0.95


@pytest.mark.parametrize("code", ["int8", "sign:512", "int4:320"])
def test_an_index_of_codes_is_built_searched_checked_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 8)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 8)
    method = fake_method(columns=(Column("vector", 64), Column("wide", 40)))
    exact = fake_build(tmp_path / "exact.lance", records(60), method)
    index = fake_build(tmp_path / "a.lance", records(60), method, code=code)
    assert [c.dtype for c in index.manifest.columns] == [code.split(":", maxsplit=1)[0]] * 2
    assert check_index(index.path) == []
    assert recompute(fake_session(index, method=method), 60) == []
    probes = {"vector": normal(4, 64), "wide": normal(4, 40, seed=1)}
    scores = score_all(index, probes, max_memory=1_000_000).values
    addresses = [hit.address for hit in top_k(index, probes, 60)[0]]
    decoded = read_vectors(index, sorted(addresses), ["vector", "wide"])
    expected = sum(decoded[name] @ probes[name].T for name in probes)
    assert np.allclose(scores, expected, atol=1e-3 if code == "int8" else 0.5)
    assert np.corrcoef(scores.ravel(), score_all(exact, probes).values.ravel())[0, 1] > 0.9
    assert index.fetch(["row-3"])[0].metadata == exact.fetch(["row-3"])[0].metadata
    assert json_bytes(index) == pytest.approx(sum(c.row_bytes for c in index.manifest.columns), rel=0.2)


def json_bytes(index: object) -> float:
    return float(describe(index)["bytes_per_row"]["vectors"])  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["int8", "sign"])
def test_a_coded_row_that_is_not_finite_is_named(tmp_path: Path, code: str) -> None:
    rows = records(10)
    rows[6]["id"] = "nan-row"
    with pytest.raises(NumericError, match="nan-row"):
        fake_build(tmp_path / "a.lance", rows, fake_method(poisoned=("nan-row",)), code=code)


def test_a_row_of_zeros_has_a_score_of_zero() -> None:
    for code in CODES:
        assert estimates(torch.zeros(2, 100), normal(3), column(code)).abs().max() == 0


def test_codes_are_called_by_name() -> None:
    assert coded([Column("v", 9)], None) == (Column("v", 9),)
    assert coded([Column("v", 4096)], "sign")[0].row_bytes == 1028
    assert coded([Column("v", 90)], "sign:64")[0].width == 8
    assert (
        coded([Column("v", 4096)], "int4")[0].row_bytes == coded([Column("v", 4096)], "int2:8192")[0].row_bytes == 1028
    )
    square = Column("v", 256, matrices=((16, 16),))
    assert coded([square], "factors")[0].row_bytes == 64
    assert coded([square], "factors:8")[0] == square
    assert coded([Column("v", 256)], "factors") == coded([Column("v", 256)], "none") == (Column("v", 256),)
    wide, narrow = Column("v", 4096), Column("w", 160)
    assert coded([wide, narrow], "sign")[1] == narrow, "a code that is no smaller is of no use"
    for wrong in ("int3", "sign:63", "sign:0", "sign:x", "int8:4", "factors:0", "none:1", ""):
        with pytest.raises(UsageError, match="is no code"):
            coded([Column("v", 9)], wrong)
