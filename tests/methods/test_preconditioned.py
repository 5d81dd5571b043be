"""TRAK, LoGra, TrackStar and LESS against their formulas, through a real index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.curvature.adam import read_adam, write_adam
from headwater.data.batches import Window
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.evaluation.stage import Stage
from headwater.features.parameters import select_linear
from headwater.features.row_losses import mean_losses
from headwater.indexing.build import build
from headwater.indexing.session import open_session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.reader import Reader
from headwater.tracing.trace import TraceOptions, trace_rows
from oracles.gradient_oracles import row_gradients
from oracles.preconditioned_oracles import adam_update, blockwise_cosine, flat, trak
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()
RECORDS = [
    {"id": f"r{i}", "prompt": " ".join(WORDS[i : i + 3]), "response": " ".join(WORDS[2 * i : 2 * i + 4])}
    for i in range(14)
]
ATTENTION = "*.q_proj.weight,*.v_proj.weight"


class Case:
    """A tiny model, its pool, and the oracle's gradients of rows and queries."""

    def __init__(self, name: str, folder: Path, globs: str) -> None:
        self.loaded = tiny_loaded(name)
        self.stage = Stage(self.loaded, open_corpus(RECORDS), folder)
        self.queries = self.stage.rows[:3]
        tokens = Reader.of(self.loaded).tokenize(self.stage.rows)
        everything = [row_gradients(self.loaded.model, row) for row in tokens]
        self.names = list(select_linear(self.loaded.model, globs).shapes)
        self.rows = everything

    def scores(self, label: str) -> np.ndarray:
        whole = f"{label}{',' if ':' in label else ':'}preset=full"  # the numbers themselves, not their codes
        return self.stage.score(whole, self.queries).scores.values

    def blocks(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        rows = [np.stack([g[n].double().flatten().numpy() for g in self.rows]) for n in self.names]
        return rows, [block[:3] for block in rows]


@pytest.fixture
def case(tmp_path) -> Case:
    return Case("llama", tmp_path, "*.q_proj.weight")


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-3) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_trak_is_its_formula(case):
    batches = Reader.of(case.loaded).batches(case.stage.rows, Window(512))
    losses = mean_losses(case.loaded, batches, 14).double().numpy()
    rows = np.stack([flat(g, case.names) for g in case.rows])
    expected = trak(rows, rows[:3], (losses, losses[:3]), 0.1)
    close(case.scores("trak:sketch=identity,parameters=*.q_proj.weight"), expected)


def test_logra_without_projection_is_the_layerwise_inverse(case):
    rows, queries = case.blocks()
    close(case.scores("logra:rank=32,parameters=*.q_proj.weight"), blockwise_cosine(rows, queries, 0.1, unit=False))


def test_logra_projects_both_sides(tmp_path):
    case = Case("llama", tmp_path, "*.q_proj.weight")
    encoder = find_method("logra", {"rank": 4, "parameters": "*.q_proj.weight"}).require_vectors().bind(case.loaded)
    rows = []
    for start, name in zip((0, 16), case.names, strict=True):
        assert encoder.sketch._places[name] == (start, 4, 4)
        like = torch.empty(0, dtype=torch.float32)
        left, right = (encoder.sketch._side(name, side, 32, 4, like).double() for side in ("left", "right"))
        rows.append(np.stack([(left.mT @ g[name].double() @ right).flatten().numpy() for g in case.rows]))
    expected = blockwise_cosine(rows, [r[:3] for r in rows], 0.1, unit=False)
    close(case.scores("logra:rank=4,parameters=*.q_proj.weight"), expected)


def test_trackstar_is_the_cosine_in_the_whitened_space(case):
    rows, queries = case.blocks()
    expected = blockwise_cosine(rows, queries, 0.1, unit=True)
    close(case.scores("trackstar:correction=none,rank=32,parameters=*.q_proj.weight"), expected)


def trained_adam(loaded, names: list[str]) -> torch.optim.AdamW:
    parameters = dict(loaded.model.named_parameters())
    optimizer = torch.optim.AdamW([parameters[n] for n in names], lr=1e-9, betas=(0.8, 0.95), eps=1e-6)
    for step in range(3):
        for n in names:
            generator = torch.Generator().manual_seed(step)
            parameters[n].grad = torch.randn(parameters[n].shape, generator=generator) * 0.01
        optimizer.step()
    return optimizer


def test_adams_step_on_a_flat_gradient_is_the_same(case, tmp_path):
    write_adam(tmp_path / "adam", trained_adam(case.loaded, case.names), case.loaded.model)
    adam = read_adam(tmp_path / "adam", case.loaded.model, case.names)
    name = case.names[0]
    gradient = torch.randn(2, *adam.first[name].shape)
    torch.testing.assert_close(adam.update(name, gradient.flatten(1)), adam.update(name, gradient).flatten(1))
    torch.testing.assert_close(adam.scaled(name, gradient.flatten(1)), adam.scaled(name, gradient).flatten(1))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_less_is_the_cosine_of_adams_step_with_the_querys_gradient(name, tmp_path):
    globs = "*.q_proj.weight" if name == "llama" else "*.c_proj.weight"
    case = Case(name, tmp_path, globs)
    write_adam(tmp_path / "adam", trained_adam(case.loaded, case.names), case.loaded.model)
    adam = read_adam(tmp_path / "adam", case.loaded.model, case.names)
    constants = (adam.step, adam.beta1, adam.beta2, adam.epsilon)
    assert constants == (3, 0.8, 0.95, 1e-6)
    steps = [
        {n: adam_update(g[n].double(), adam.first[n].double(), adam.second[n].double(), constants) for n in case.names}
        for g in case.rows
    ]
    rows = np.stack([flat(g, case.names) for g in steps])
    queries = np.stack([flat(g, case.names) for g in case.rows[:3]])
    expected = rows @ queries.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(queries, axis=1))
    close(case.scores(f"less:sketch=identity,parameters={globs},adam={tmp_path / 'adam'}"), expected)


def test_trackstar_divides_by_the_root_of_adams_second_moment(case, tmp_path):
    write_adam(tmp_path / "adam", trained_adam(case.loaded, case.names), case.loaded.model)
    adam = read_adam(tmp_path / "adam", case.loaded.model, case.names)
    rows = [
        np.stack(
            [(g[n] / ((adam.second[n] / (1 - 0.95**3)).sqrt() + 1e-6)).double().flatten().numpy() for g in case.rows]
        )
        for n in case.names
    ]
    expected = blockwise_cosine(rows, [r[:3] for r in rows], 0.1, unit=True)
    close(case.scores(f"trackstar:rank=32,parameters=*.q_proj.weight,adam={tmp_path / 'adam'}"), expected)


def test_adams_state_is_asked_for_and_checked(case, tmp_path):
    for name in ("less", "trackstar"):
        with pytest.raises(UsageError, match=r"headwater\.Recorder"):
            find_method(name)
    with pytest.raises(DataError, match="no moments of Adam"):
        find_method("less", {"adam": str(tmp_path / "none")}).require_vectors().bind(case.loaded)
    write_adam(tmp_path / "adam", trained_adam(case.loaded, case.names), case.loaded.model)
    with pytest.raises(MismatchError, match="no moments of their shape"):
        find_method("less", {"adam": str(tmp_path / "adam")}).require_vectors().bind(case.loaded)
    with pytest.raises(DataError, match="cannot be used"):
        write_adam(tmp_path / "sgd", torch.optim.SGD(case.loaded.model.parameters(), lr=0.1), case.loaded.model)


def test_linear_layers_leave_out_head_embedding_and_norms():
    assert {n.split(".")[-2] for n in select_linear(tiny_loaded("llama").model).shapes} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert all("lora_" in n for n in select_linear(tiny_loaded("llama-lora").model).shapes)


@pytest.mark.parametrize("label", ["logra", "trak", "trackstar"])
def test_token_maps_of_both_sides_add_up_to_the_score(case, tmp_path, label):
    settings = {"trackstar": {"correction": "none"}}.get(label, {}) | {
        "parameters": "*.q_proj.weight",
        "preset": "full",
    }
    bound = Bound.of(find_method(label, settings), Reader.of(case.loaded))
    index = build(tmp_path / "i.lance", open_corpus(RECORDS), bound)
    found = trace_rows(open_session(index, case.loaded), case.queries[:2], TraceOptions(top=3, tokens=True))
    for query in found.queries:
        for hit in query.hits:
            for side in (hit.row_tokens, hit.query_tokens):
                assert sum(v for v in side.values if v is not None) == pytest.approx(hit.score, rel=5e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_row_has_the_same_vector_alone_as_beside_others_biases_included(name):
    bound = Bound.of(find_method("trackstar", {"correction": "none"}), Reader.of(tiny_loaded(name)))
    rows = [Row(f"r{i}", i, prompt="What is it?", response=text) for i, text in enumerate(SENTENCES[:3])]
    together = bound.encode(rows, "train").vectors["gradient"]
    alone = torch.cat([bound.encode([row], "train").vectors["gradient"] for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
