"""Concord: EK-FAC cosines, plus RISE and the embedding for those queries on which their outliers agree with these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from headwater.features.encoder import Encoder
from headwater.features.joined import JoinedEncoder
from headwater.methods.ekfac_cos import ENTRY as COSINES
from headwater.methods.ekfac_cos import EkfacCosOptions, cosine_encoder, curvature_file, readings
from headwater.methods.method import FULL, Meaning, Method, MethodEntry, method_of_vectors
from headwater.methods.rise import DEFAULT as RISE
from headwater.methods.rise import encoder as rise_encoder
from headwater.models.load import LoadedModel
from headwater.models.readout import find_readout
from headwater.search.agreement import AgreeingColumns

SHARES: Mapping[str, Mapping[str, float]] = {
    "gradient": {"share": 1.5},
    "gradient@halfway": {"share": 1.0, "weight": 2 / 3},
    "gradient@end": {"share": 0.5, "weight": 1 / 3},
    "rise": {"share": 0.25, "weight": 0.0},
    "embedding": {"share": 0.0625},
}
"""How much of a code's bits each column gets, and its weight. The columns of RISE get theirs query by query."""

MEANING = Meaning(
    "higher = more of a cause, plus more alike where causes are; the sign does not say whether a row helps or harms",
    signed=False,
)
"""What is added is not centred, and nearly all rows resemble a query a little, so most scores are positive."""


@dataclass(frozen=True)
class ConcordOptions(EkfacCosOptions):
    """strength: how much of RISE and of the embedding is added where they agree; 0 leaves the cosines alone.

    The others are those of `ekfac-cos`.
    """

    strength: float = 2.5


def concord(options: ConcordOptions) -> Method:
    """The method: the score of `ekfac-cos`, plus what `headwater.search.agreement` says."""
    form = {
        "agreement": AgreeingColumns(("rise", "embedding"), options.strength),
        "preparation": curvature_file(options, concord),
        "passes": 2 + 3.0 * readings(options),
    }
    method = method_of_vectors("concord", options, partial(_bind, options), **form)
    return replace(method, meaning=MEANING, fit_rows=0 if options.curvature else options.fit_rows)


def _bind(options: ConcordOptions, loaded: LoadedModel) -> Encoder:
    readout = rise_encoder(replace(RISE, seed=options.seed), find_readout(loaded))
    return JoinedEncoder((cosine_encoder(options, loaded), readout), SHARES)


ENTRY = MethodEntry(
    name="concord",
    summary="EK-FAC cosines, with RISE and the embedding added where their outliers agree.",
    reads="what ekfac-cos and rise read",
    stores="4 KiB; 112 KiB with preset=full",
    code="sign:17408",
    cost="about 5 forward passes, or 8 with two readings, and forming every gradient once; 9 for each row fitted on",
    source="curvature: Grosse et al., arXiv 2308.03296; readout: Ran et al., arXiv 2604.16197; agreement: headwater",
    presets={"default": ConcordOptions(), FULL: ConcordOptions()},
    make=concord,
    choices=COSINES.choices,
    recorded=COSINES.recorded,
)
