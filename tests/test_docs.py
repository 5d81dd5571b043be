"""What the documents say is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import headwater
from headwater.methods.catalog import CATALOG
from zoo import tiny_loaded

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(DOCS.rglob("*.md"))


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


@pytest.mark.parametrize("document", ["methods/index.md", "reference/cli.md", "reference/json.md"])
def test_generated_parts_are_those_of_the_code(document):
    text = (DOCS / document).read_text(encoding="utf-8")
    assert generator().rewritten(document, text) == text, "run `make docs`"


def test_all_generated_documents_are_tested():
    assert set(generator().GENERATED) == {"methods/index.md", "reference/cli.md", "reference/json.md"}


def test_a_document_without_its_markers_is_refused():
    with pytest.raises(ValueError, match=r"methods/index\.md"):
        generator().rewritten("methods/index.md", "# Methods\n")


def test_every_method_has_a_page():
    for name in CATALOG:
        assert (DOCS / "methods" / f"{name}.md").exists(), name


def test_every_page_is_in_the_navigation():
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    assert set(listed(site["nav"])) == {page.relative_to(DOCS).as_posix() for page in PAGES}


def listed(nav: Any) -> list[str]:
    """The pages of a navigation, at any depth."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in listed(part)]


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_site_asks_no_other_host():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in site
    assert not re.search(r"^\s*(repo_url|edit_uri|analytics|extra_javascript)\b", site, flags=re.MULTILINE)
    assert "://" not in site


def test_the_rooms_in_the_map_are_the_rooms():
    rooms = {path.name for path in (ROOT / "src" / "headwater").iterdir() if (path / "__init__.py").exists()}
    listed_rooms = set(re.findall(r"^  (\w+)/ ", README, flags=re.MULTILINE))
    assert listed_rooms == rooms


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
