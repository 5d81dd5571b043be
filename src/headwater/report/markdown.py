"""Tables in GitHub-flavoured Markdown, for README files, leaderboards and issue threads."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.report.tables import Cell, cell_text, numeric_columns, require_rectangle


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    r"""A Markdown table, columns padded so that the source is readable too, numbers flush right.

    Pipes, backslashes, line breaks and `<` are escaped, so no cell can leave its place or become HTML; other Markdown
    (`**bold**`, code) is left to the caller.

    >>> print(markdown_table(["method", "P@10"], [["rise", 0.87], ["bm25", None]]))
    | method | P@10 |
    | :----- | ---: |
    | rise   | 0.87 |
    | bm25   |    – |
    """
    require_rectangle(columns, rows, where="markdown table")
    right = numeric_columns(columns, rows)
    body = [[_escape(cell_text(cell)) for cell in row] for row in [list(columns), *rows]]
    widths = [max(3, *(len(line[place]) for line in body)) for place in range(len(columns))]
    rule = ["-" * (w - 1) + ":" if flush else ":" + "-" * (w - 1) for w, flush in zip(widths, right, strict=True)]
    padded = [
        [c.rjust(w) if flush else c.ljust(w) for c, w, flush in zip(line, widths, right, strict=True)] for line in body
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _escape(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return "<br>".join(text.splitlines())
