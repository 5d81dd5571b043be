"""`headwater unlearn --from-trace` where nothing stands out, and where its options do not go together."""

from __future__ import annotations

from test_commands import headwater

import headwater as hw
from zoo import tiny_loaded


def test_the_command_changes_nothing_and_exits_with_1(tmp_path):
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"what is item {i}?", "response": f"It is no {i}."} for i in range(160)]
    hw.build(tmp_path / "rows.lance", model=str(tmp_path / "model"), data=rows, settings={"preset": "small"})
    given = ("unlearn", "--model", "model", "--out", "out")
    done = headwater(*given, "--from-trace", "what is item 3?", "--index", "rows.lance", "--draw", "60", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "nothing was changed" in done.stderr
    assert not (tmp_path / "out").exists()
    for words, fault in (
        ((), "--from-trace PROMPT with --index INDEX"),
        (("--from-trace", "x"), "give --index INDEX"),
        (("--from-trace", "x", "--forget", "rows.jsonl"), "either the rows to forget or prompts"),
    ):
        refused = headwater(*given, *words, cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert fault in " ".join(refused.stderr.split())
