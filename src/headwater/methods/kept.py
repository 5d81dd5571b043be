"""How much of the full vectors' quality codes keep, as measured: the one home of these numbers.

Made by `python benchmarks/small.py`, whose tables are in docs/performance.md: for each method and code the least share
of the quality of plain numbers, above chance, over detection among anti-documents, separation and LDS. `int4:16352`
stands on the measurement of `int4:16384`, which has eight levels more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwater.core.spec import Column, code_of

KEPT: Mapping[str, Mapping[str, float]] = {
    "rise": {
        "int8": 0.99,
        "sign:32768": 0.99,
        "sign:16384": 0.99,
        "int2:8192": 0.98,
        "sign:8192": 0.97,
        "int4:8192": 0.92,
    },
    "rapidin": {"int8": 0.99, "sign:65536": 0.98, "sign:32768": 0.95, "sign:16384": 0.92, "sign:8192": 0.83},
    "gradcos": {"sign:65536": 0.98, "sign:32768": 0.94, "sign:16384": 0.89, "sign:8192": 0.82},
    "graddot": {
        "int8": 0.99,
        "int4:262144": 1.0,
        "int2:131072": 0.98,
        "sign:131072": 0.95,
        "sign:65536": 0.93,
        "sign:32768": 0.81,
        "sign:16384": 0.65,
    },
    "tracin": {"sign:65536": 0.98, "sign:32768": 0.94, "sign:16384": 0.88, "sign:8192": 0.78},
    "trak": {"int8": 0.99, "int4:16384": 0.99, "int4:16352": 0.99, "int2:16384": 1.0, "sign:16384": 1.0},
    "less": {"int8": 0.99, "int4:32768": 0.97, "sign:32768": 0.85, "int2:16384": 0.85, "sign:16384": 0.77},
    "relatif": {"int8": 0.98, "int4:16384": 0.99, "int4:16352": 0.99, "sign:16384": 0.95, "int2:16384": 0.84},
    "ekfac-cos": {"sign:65536": 0.95, "sign:32768": 0.91, "sign:16384": 0.77, "sign:16352": 0.77, "sign:8192": 0.61},
    "rise-gram": {"int8": 1.0, "int4:16384": 1.0, "int4:16352": 1.0, "int2:16384": 0.97, "sign:16384": 0.94},
    "logra": {
        "int8": 1.0,
        "int4:16384": 0.98,
        "int4:16352": 0.98,
        "factors:2": 0.94,
        "factors:1": 0.76,
        "sign:16384": 0.74,
    },
    "trackstar": {"int8": 0.97, "sign:8192": 0.86, "factors:1": 0.85, "sign:16384": 0.83, "int2:16384": 0.76},
}


def expected(method: str, columns: Sequence[Column]) -> float | None:
    """The share that the code of these columns keeps: 1 for plain numbers, None if it was not measured."""
    code = code_of(columns)
    return 1.0 if code == "none" else KEPT.get(method, {}).get(code)


def told(code: str, kept: float | None) -> str:
    """How vectors are stored and what is expected of them, for people to read."""
    if code == "none":
        return "as numbers"
    if kept is None:
        return f"as {code}; what it loses was not measured: headwater index retention does it on your queries"
    return f"as {code}, which kept {100 * kept:.0f} % of the full vectors' quality on the worst of the tasks measured"
