"""Contrasts, means, directions, modules and groups, each against what it says that it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import headwater as hw
from headwater.cli.main import run
from headwater.core.errors import DataError, UsageError
from headwater.features.gradient_sketch import module_of
from headwater.search.codes import read_vectors
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()
ROWS = [
    {
        "id": f"r{i}",
        "prompt": f"{WORDS[i]} {WORDS[i + 1]}?",
        "response": " ".join(WORDS[i + 2 : i + 6]),
        "provider": "abc"[i % 3] if i != 7 else None,
    }
    for i in range(18)
]
QUERIES = [{**ROWS[i], "id": f"q{i}", "response": " ".join(WORDS[i + 5 : i + 9])} for i in range(4)]


@pytest.fixture(scope="module", params=["graddot", "logra"])
def session(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aims")
    loaded = tiny_loaded("llama-lora" if request.param == "graddot" else "llama")
    settings = {"rank": 4} if request.param == "logra" else {"buckets": 64}
    hw.build(folder / "i.lance", model=loaded, data=ROWS, method=request.param, settings=settings)
    return hw.open_session(folder / "i.lance", loaded)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    loaded = tiny_loaded("llama-lora")
    path = tmp_path_factory.mktemp("gradients") / "i.lance"
    hw.build(path, model=loaded, data=ROWS, method="graddot", settings={"buckets": 64})
    return hw.open_session(path, loaded)


def scores(trace) -> dict[str, dict[str, float]]:
    return {q.id: {h.id: h.score for h in q.hits} for q in trace.queries}


def close(found: dict[str, float], expected: dict[str, float]) -> None:
    largest = max(map(abs, expected.values()))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-5 * largest + 1e-9)


def test_a_contrast_is_the_difference_of_scores_and_a_mean_their_mean(session):
    single = scores(hw.trace(session, QUERIES, top=18))
    pairs = scores(hw.trace(session, QUERIES[:2], against=QUERIES[2:], top=18))
    for q, other in (("q0", "q2"), ("q1", "q3")):
        close(pairs[q], {r: single[q][r] - single[other][r] for r in single[q]})
    to_one = scores(hw.trace(session, QUERIES[:2], against=QUERIES[3:], top=18))
    close(to_one["q1"], {r: single["q1"][r] - single["q3"][r] for r in single["q1"]})
    mean = scores(hw.trace(session, QUERIES[:3], mean=True, top=18))
    close(mean["mean"], {r: sum(single[f"q{i}"][r] for i in range(3)) / 3 for r in single["q0"]})
    concept = hw.trace(session, QUERIES[:3], against=QUERIES[3:], mean=True, top=18, tokens=True)
    close(scores(concept)["mean"], {r: mean["mean"][r] - single["q3"][r] for r in mean["mean"]})
    hit = concept.queries[0].hits[0]
    assert hit.query_tokens is None
    assert "mean of 3 queries against the mean of 1" in concept.about["asked"]


def test_another_response_to_the_same_prompt_is_a_contrast(gradients):
    asked = {"prompt": "What is the capital?", "response": " Paris is."}
    other = {**asked, "response": " The fox."}
    found = scores(hw.trace(gradients, prompt=asked["prompt"], response=asked["response"], against=" The fox.", top=18))
    single = scores(hw.trace(gradients, [{"id": "a", **asked}, {"id": "b", **other}], top=18))
    close(found["prompt"], {r: single["a"][r] - single["b"][r] for r in single["a"]})


def test_rows_tokens_and_whole_gradients_follow_a_contrast(gradients):
    both = hw.trace(gradients, QUERIES[:1], against=QUERIES[1:2], top=4, tokens=True, exact=18)
    plain = scores(hw.trace(gradients, QUERIES[:2], top=18, exact=18))
    for hit in both.queries[0].hits:
        assert hit.score == pytest.approx(plain["q0"][hit.id] - plain["q1"][hit.id], rel=1e-3, abs=1e-4)
    sketched = hw.trace(gradients, QUERIES[:1], against=QUERIES[1:2], top=4, tokens=True)
    for hit in sketched.queries[0].hits:
        assert sum(v for v in hit.row_tokens.values if v is not None) == pytest.approx(hit.score, rel=1e-3, abs=1e-4)


def test_a_direction_is_searched_as_a_querys_vector(session, tmp_path):
    (name,) = [c.name for c in session.index.manifest.columns if c.weight]
    vector = session.bound.encode([hw_row(QUERIES[0])], "query").vectors[name].numpy()
    np.save(tmp_path / "one.npy", vector[0])
    save_file({name: np.concatenate([vector, -vector])}, tmp_path / "two.safetensors")
    single = scores(hw.trace(session, QUERIES[:1], top=18))["q0"]
    close(scores(hw.trace(session, direction=tmp_path / "one.npy", top=18))["direction"], single)
    two = scores(hw.trace(session, direction=tmp_path / "two.safetensors", top=18, tokens=True))
    close(two["direction 2"], {r: -v for r, v in single.items()})


def hw_row(record):
    from headwater.tracing.queries import read_queries

    return read_queries([record])[0]


def test_a_probe_of_hidden_states_finds_rows_along_it(tmp_path):
    loaded = tiny_loaded("llama")
    index = hw.build(tmp_path / "i.lance", model=loaded, data=ROWS, method="rise")
    states = read_vectors(index, addresses(index), ["embedding"])["embedding"].numpy()
    probe = np.random.default_rng(0).normal(size=states.shape[1]).astype(np.float32)
    found = hw.trace(index, direction=probe, by="embedding", model=loaded, top=3)
    expected = [f"r{i}" for i in np.argsort(-(states @ probe))[:3]]
    assert [hit.id for hit in found.queries[0].hits] == expected


def addresses(index):
    return [a for batch in index.batches(["id"]) for a in batch.column("_rowaddr").to_pylist()]


def test_module_parts_are_those_of_autograd_and_sum_to_the_exact_score(gradients):
    found = hw.trace(gradients, QUERIES[:1], top=2, exact=18, by_module=True)
    loaded, hits = gradients.bound.reader.loaded, found.queries[0].hits
    for hit in hits:
        assert sum(hit.modules.values()) == pytest.approx(hit.score, rel=1e-4)
        row = next(r for r in ROWS if r["id"] == hit.id)
        left, right = (by_autograd(gradients, loaded, record) for record in (row, QUERIES[0]))
        parts: dict[str, float] = {}
        for name, gradient in left.items():
            part = float((gradient * right[name]).sum())
            parts[module_of(name)] = parts.get(module_of(name), 0.0) + part
        assert parts.keys() == hit.modules.keys()
        for name, value in parts.items():
            assert hit.modules[name] == pytest.approx(value, rel=1e-3, abs=1e-6)
    assert "modules" in found.hits()[0]


def by_autograd(session, loaded, record):
    """Gradients of a row's mean loss over its answer, of the parameters that the method reads."""
    (token_row,) = session.bound.tokenize([hw_row(record)], "train")
    names = set(session.bound.encoder.selection.shapes)
    chosen = {n: p for n, p in loaded.model.named_parameters() if n in names}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    logits = loaded.model(input_ids=torch.tensor(token_row.ids)[None]).logits[0]
    places = torch.tensor(token_row.response.nonzero()[0])
    loss = torch.nn.functional.cross_entropy(logits[places - 1], torch.tensor(token_row.ids)[places])
    found = dict(zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True))
    loaded.model.requires_grad_(False)
    return found


@pytest.mark.parametrize(
    ("tensor", "module"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj"),
        ("base_model.model.q_proj.lora_A.default.weight", "base_model.model.q_proj"),
        ("base_model.model.q_proj.base_layer.bias", "base_model.model.q_proj"),
        ("base_model.model.embed.lora_embedding_B.default", "base_model.model.embed"),
        ("model.norm.weight", "model.norm"),
    ],
)
def test_a_tensor_belongs_to_its_module(tensor, module):
    assert module_of(tensor) == module


def test_a_groups_effect_is_that_of_leaving_it_out_of_the_quadratic_model(session):
    """Dense, with a matrix of the vectors' size: H without the group's part, solved for the group's sum."""
    found = hw.trace(session, QUERIES[:2], top=1, group_by="provider", damping=0.05)
    names = [c.name for c in session.index.manifest.columns if c.weight]
    stored = read_vectors(session.index, addresses(session.index), names)
    weights = {c.name: c.weight for c in session.index.manifest.columns}
    v = torch.cat([stored[n] * weights[n] ** 0.5 for n in names], 1).double().numpy()
    read = session.bound.encode([hw_row(q) for q in QUERIES[:2]], "query").vectors
    q = torch.cat([read[n] * weights[n] ** 0.5 for n in names], 1).double().numpy()
    shift = 0.05 * np.trace(v.T @ v) / min(v.shape)
    whole = v.T @ v + shift * np.eye(v.shape[1])
    groups = [row["provider"] or "(none)" for row in ROWS]
    assert {(g.query, g.group) for g in found.groups} == {(f"q{i}", g) for i in (0, 1) for g in set(groups)}
    for effect in found.groups:
        mine = v[[i for i, g in enumerate(groups) if g == effect.group]]
        query = q[int(effect.query[1])]
        left = np.linalg.solve(whole - mine.T @ mine, mine.sum(0))
        assert effect.rows == len(mine)
        assert effect.effect == pytest.approx(query @ left, rel=1e-5, abs=1e-9)
        alone = sum(query @ np.linalg.solve(whole - np.outer(row, row), row) for row in mine)
        assert effect.summed == pytest.approx(alone, rel=1e-5, abs=1e-9)
        assert effect.interaction == effect.effect - effect.summed
    order = [g.effect for g in found.groups if g.query == "q0"]
    assert order == sorted(order, reverse=True)


def test_copies_stand_in_for_one_another(tmp_path):
    """Ten copies of one row: one by one they matter little, because the others remain, together they matter much."""
    rows = [{**ROWS[i], "provider": "many"} for i in range(8)]
    rows += [{**ROWS[9], "id": f"c{i}", "provider": "copies"} for i in range(10)]
    loaded = tiny_loaded("llama")
    index = hw.build(tmp_path / "i.lance", model=loaded, data=rows, method="graddot", settings={"buckets": 64})
    query = {**ROWS[9], "id": "q"}
    found = hw.trace(index, [query], model=loaded, top=1, group_by="provider", damping=0.01)
    copies = next(g for g in found.groups if g.group == "copies")
    assert copies.effect > 2 * copies.summed > 0
    assert found.groups[0] == copies


REFUSED = [
    ({"queries": QUERIES, "against": QUERIES[:2]}, UsageError, "2 queries against 4"),
    ({"queries": QUERIES, "direction": np.ones(4)}, UsageError, "give one: queries, a prompt or a direction"),
    ({"direction": np.ones(4)}, UsageError, "a direction of shape"),
    ({"direction": np.zeros(64)}, (DataError, UsageError), "not zero|shape"),
    ({"direction": "none.npy"}, DataError, "there is no such file"),
    ({"direction": "rows.jsonl"}, DataError, r"not a \.npy"),
    ({"queries": QUERIES, "group_by": "supplier"}, UsageError, "unknown column 'supplier'"),
    ({"queries": QUERIES, "group_by": "provider", "damping": 0.0}, UsageError, "above 0"),
]


@pytest.mark.parametrize(("asked", "kind", "fault"), REFUSED)
def test_what_cannot_be_asked_is_refused(gradients, asked, kind, fault):
    with pytest.raises(kind, match=fault):
        hw.trace(gradients, **asked)


def test_a_method_without_gradients_has_no_modules(tmp_path):
    loaded = tiny_loaded("llama")
    index = hw.build(tmp_path / "i.lance", model=loaded, data=ROWS, method="rise", settings={"preset": "small"})
    with pytest.raises(UsageError, match="does not read gradients module by module"):
        hw.trace(index, QUERIES[:1], model=loaded, by_module=True)


def test_the_command_prints_contrasts_modules_and_groups(tmp_path, monkeypatch, capsys):
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(tmp_path / "m")
    loaded.tokenizer.save_pretrained(tmp_path / "m")
    hw.build(tmp_path / "i.lance", model=str(tmp_path / "m"), data=ROWS, method="graddot", settings={"buckets": 64})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUERIES[:2]))
    (tmp_path / "other.jsonl").write_text(json.dumps(QUERIES[3]) + "\n")
    monkeypatch.chdir(tmp_path)
    words = ["trace", "i.lance", "--queries", "q.jsonl", "--against", "other.jsonl", "--top", "2", "--by-module"]
    with pytest.raises(SystemExit) as ended:
        run([*words, "--group-by", "provider"])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert "effects of groups" in said.out
    assert "modules behind 'q0'" in said.out
    assert "each query against another" in said.err
