"""What the documents say is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import headwater
from headwater.methods.catalog import CATALOG, STREAMING
from zoo import tiny_loaded

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_method_table_is_the_catalogs():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.rewritten(README) == README, "run `make docs`"


def test_every_method_has_a_page():
    for name in (*CATALOG, *STREAMING):
        assert (ROOT / "docs" / "methods" / f"{name}.md").exists(), name


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_rooms_in_the_map_are_the_rooms():
    rooms = {path.name for path in (ROOT / "src" / "headwater").iterdir() if (path / "__init__.py").exists()}
    listed = set(re.findall(r"^  (\w+)/ ", README, flags=re.MULTILINE))
    assert listed == rooms


def test_the_program_in_the_readme_runs(tmp_path, monkeypatch):
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(tmp_path / "my-model")
    loaded.tokenizer.save_pretrained(tmp_path / "my-model")
    rows = "".join(f'{{"prompt": "What is {i}?", "response": "A number, {i}."}}\n' for i in range(30))
    for name in ("train.jsonl", "questions.jsonl"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    assert (tmp_path / "report.html").exists()
    assert headwater.open_index("runs/mine.lance").count == 30
