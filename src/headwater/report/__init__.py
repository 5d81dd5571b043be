"""Reports for people: one self-contained HTML page for a trace, plots, and tables in Markdown (no torch).

`render_trace` and `write_report` turn a `Trace` into HTML. `headwater.report.plots` draws figures; matplotlib is
imported only when a figure is drawn. `markdown_table` writes tables for documents.
"""

from headwater.report.page import render_trace, write_report
from headwater.report.tables import Table, markdown_table

__all__ = ["Table", "markdown_table", "render_trace", "write_report"]
