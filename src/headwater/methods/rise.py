"""RISE: forward-only sketches of the readout layer's gradient (Ran et al., arXiv 2604.16197)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import cast

from headwater.core.spec import MethodSpec, Role
from headwater.data.batches import CONTEXT, HALF, Window
from headwater.features.readout_sketch import Channels, Positions, ReadoutSketch
from headwater.features.residuals import Support
from headwater.methods.method import FULL, Method, MethodEntry, Vectors
from headwater.models.readout import Readout, find_readout


@dataclass(frozen=True)
class RiseOptions:
    """All options of the estimator; the method's page says what each does and which values were measured.

    The presets set `slope`. Its own default stands for indexes of before it was an option.
    """

    lambda_rh: float = 1.0
    lambda_gh: float = 3.0
    lambda_rg: float = 0.0
    width_r: int = 128
    width_h: int = 128
    width_g: int = 64
    temperature: float = 2.0
    adaptive: bool = False
    support: str = "full"
    top: int = 256
    mass: float = 0.92
    positions: str = "response"
    window: int = CONTEXT
    overlap: int = HALF
    query_window: int = CONTEXT
    weight_windows: str = "equal"
    normalize_factors: bool = True
    normalize_sample: bool = True
    products: str = "bfloat16"
    embedding: str = "response"
    seed: int = 0
    slope: bool = False


CHOICES = {
    "support": ("full", "top"),
    "positions": ("all", "response"),
    "weight_windows": ("equal", "tokens"),
    "products": ("exact", "bfloat16"),
    "embedding": ("all", "response", "none"),
}

DEFAULT = RiseOptions(slope=True)
PAPER = replace(
    DEFAULT,
    lambda_gh=0.3,
    temperature=0.1,
    support="top",
    positions="all",
    window=256,
    overlap=50,
    query_window=512,
    products="exact",
)
PRESETS = {
    "default": DEFAULT,
    FULL: DEFAULT,
    "paper": PAPER,
    "howdy": replace(PAPER, lambda_rh=0.7, lambda_gh=1.0),
    "small": replace(DEFAULT, width_r=12, width_h=12, width_g=28, embedding="none"),
}


def rise(options: RiseOptions) -> Method:
    """The method with these options.

    Score: ⟨row, query⟩ of unit vectors, in [−1, 1]; positive = proponent. Cost: one forward pass and one or two
    products over the vocabulary a row. Blind to everything below the readout layer.

    Raises:
        UsageError: the overlap is not below the window.
    """
    everywhere = "all" in (options.positions, options.embedding)
    windows: dict[Role, Window] = {
        "train": Window(options.window, options.overlap, everywhere),
        "query": Window(options.query_window, options.overlap, options.embedding == "all"),
    }
    vectors = Vectors(windows, lambda loaded: encoder(options, find_readout(loaded)), passes=2.0, backward=False)
    return Method(MethodSpec("rise", asdict(options)), vectors)


def encoder(o: RiseOptions, readout: Readout) -> ReadoutSketch:
    """The encoder with these options for a model's readout."""
    return ReadoutSketch(
        readout=readout,
        channels=Channels(o.lambda_rh, o.lambda_gh, o.lambda_rg, o.width_r, o.width_h, o.width_g),
        support=Support(o.support, o.temperature, o.adaptive, o.top, o.mass, slope=o.slope),  # type: ignore[arg-type]
        positions={"train": cast(Positions, o.positions), "query": "response"},
        pooling=o.embedding,  # type: ignore[arg-type]
        normalize_factors=o.normalize_factors,
        normalize_sample=o.normalize_sample,
        weight_windows=o.weight_windows,  # type: ignore[arg-type]
        products=o.products,  # type: ignore[arg-type]
        seed=o.seed,
    )


ENTRY = MethodEntry(
    name="rise",
    summary="Forward-only sketch of the readout layer's gradient: lexical and semantic residuals with their context.",
    reads="one forward pass: hidden states and logits",
    stores="1 KiB, and 2 bytes a hidden unit or 1 KiB more; 48 times that with preset=full",
    cost="1.1 to 2 forward passes",
    source="Ran et al., arXiv 2604.16197",
    presets=PRESETS,
    make=rise,
    choices=CHOICES,
    code="int2",
)
