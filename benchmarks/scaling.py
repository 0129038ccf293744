"""``python -m benchmarks.scaling``: estimate the cost of BUC and DBC on 10^6 to 10^8 images, for docs/scaling.md."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks import inputs
from reprolib import paths
from reprolib.recipe import BUC, Recipe
from reprolib.timings import Benchmark, load_benchmark

PAGE = paths.ROOT / "docs" / "scaling.md"
SIZES = (10**6, 10**7, 10**8)
DIM, FLOAT = 2048, 4  # dimension of a feature, and bytes per number
FORWARD = 5.4e9  # FLOP of ResNet-50 on one image of 256×128
GPUS, DAYS = 64, 7  # anything that needs more is out of reach


@dataclass(frozen=True)
class Rates:
    """The rates of one GPU, and the source of each number."""

    memory: float = 141e9  # bytes; data sheet
    bandwidth: float = 4.8e12  # bytes a second; data sheet
    network: float = 0.4 * 67e12  # FLOP a second of the network; assumed 40% of float32's peak
    full: float = 0.5 * 67e12  # FLOP a second of products in full float32; assumed half of its peak
    pairs: float = 0.5 * 494e12  # N² d a second of BUC's stage
    pairs_from: str = "assumed to be half of TF32's peak of 494 TFLOP/s"
    link: float = 50e9  # bytes a second between machines; assumed 400 Gb/s


H200 = Rates()


def measured(rates: Rates, benchmarks: Sequence[Benchmark]) -> Rates:
    """Return the rates with that of pairs taken from the largest first stage of BUC that ``make bench`` ran on a GPU.

    Without such a measurement the rates are unchanged.
    """
    stages = [
        (row["images"], row["images"] ** 2 * row["dim"] / row["seconds"]["ours"], benchmark.column)
        for benchmark in benchmarks
        if benchmark.provenance["device_type"] == "cuda"
        for row in benchmark.rows
        if row["piece"] == "buc" and row["clusters"] == row["images"]
    ]
    if not stages:
        return rates
    images, rate, where = max(stages)
    return replace(rates, pairs=rate, pairs_from=f"measured at N = {images:,} on {where}")


@dataclass(frozen=True)
class Cost:
    """One piece of a whole run."""

    piece: str
    images: int
    gpu_seconds: float
    held: float  # bytes held at the same time, over all GPUs
    latency: float = 0.0  # seconds that more GPUs do not shorten

    def seconds(self, gpus: int) -> float:
        """Return the wall time on this number of GPUs, with the work in equal blocks."""
        return max(self.gpu_seconds / gpus, self.latency)

    def gpus(self, rates: Rates) -> int:
        """Return the smallest number of GPUs that can hold it."""
        return max(1, int(-(-self.held // rates.memory)))

    def verdict(self, rates: Rates) -> str:
        """Return how the piece can be done."""
        if self.gpus(rates) > GPUS or self.seconds(GPUS) > DAYS * 86400:
            return "out of reach"
        if self.gpus(rates) == 1 and self.seconds(1) <= DAYS * 86400:
            return "one GPU"
        return "in blocks"


def clusters(recipe: Recipe, images: int) -> list[int]:
    """Return the number of clusters C at each stage."""
    merges = recipe.merges_per_stage(images)
    return [images - stage * merges for stage in range(recipe.num_stages(images))]


def costs(images: int, rates: Rates = H200) -> Iterator[Cost]:
    """Yield every piece of a run of BUC, then the part in which DBC differs, then approximate neighbors."""
    counts = clusters(BUC, images)
    epochs = [BUC.first_stage_epochs] + [BUC.later_stage_epochs] * (len(counts) - 1)
    seen = images * sum(epochs)
    forward = FORWARD / rates.network  # seconds
    yield Cost("training: the network", images, 3 * seen * forward, 1e9, latency=seen * 3 * forward / BUC.batch_size)
    # Every batch of 16 reads the table for its logits and again for their gradient; a product of 16 rows costs no more.
    rows = sum(e * c for e, c in zip(epochs, counts, strict=True))
    table = 2 * images / BUC.batch_size * rows * DIM * FLOAT / rates.bandwidth
    yield Cost("training: the table", images, table, images * DIM * FLOAT)
    merged = len(counts) - 1  # stages that end in a merge
    yield Cost("features", images, len(counts) * images * forward, images * DIM * FLOAT)
    exact = merged * images**2 * DIM
    sent = merged * images * DIM * FLOAT / rates.link  # every GPU receives every feature once per stage
    yield Cost("BUC: exact pairs", images, exact / rates.pairs, images * DIM * FLOAT, latency=sent)
    # Ranked again after each merge: a matrix with bounds for all pairs of clusters.
    matrix = (counts[0] ** 2 + images * DIM) * FLOAT
    yield Cost("DBC: exact pairs", images, exact / rates.full, matrix, latency=sent)
    yield Cost("neighbors by lists", images, merged * 2 * _compared(images) * DIM / rates.network, images * DIM * FLOAT)


LISTS, PROBED, NEIGHBORS = 1.0, 32, 32  # number of lists over √N; lists searched; neighbors kept per image


def _compared(images: int) -> float:
    """Return the number of compared pairs: every image with the centers of the lists, and with the images of some."""
    lists = LISTS * images**0.5
    return images * (lists + PROBED * images / lists)


def table(rates: Rates) -> str:
    """Return the table of costs: GPU-hours of a whole run, memory, wall time on 64 GPUs, and how it can be done."""
    head = f"| images | piece of a run | GPU-hours | held | GPUs that hold it | on {GPUS} GPUs | how |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for images in SIZES:
        for c in costs(images, rates):
            wall = _span(c.seconds(GPUS)) if c.gpus(rates) <= GPUS else "–"
            cells = (f"10^{len(str(images)) - 1}", c.piece, f"{_figure(c.gpu_seconds / 3600)}", _bytes(c.held))
            lines.append(f"| {' | '.join(cells)} | {c.gpus(rates):,} | {wall} | {c.verdict(rates)} |")
    return "\n".join(lines)


def breaks(rates: Rates) -> str:
    """Return the table of the largest N that each design supports."""
    pairs = (rates.memory / FLOAT) ** 0.5
    rows = {
        "DBC's matrix of all pairs of clusters, one GPU": pairs,
        f"DBC's matrix, {GPUS} GPUs": (GPUS * rates.memory / FLOAT) ** 0.5,
        "the lookup table, one GPU": rates.memory / (DIM * FLOAT),
        f"BUC's exact pairs, {GPUS} GPUs for {DAYS} days": (
            GPUS * DAYS * 86400 * rates.pairs / (len(clusters(BUC, 10**6)) - 1) / DIM
        )
        ** 0.5,
    }
    return "\n".join(["| design | holds up to N |", "|---|---|"] + [f"| {k} | {_figure(v)} |" for k, v in rows.items()])


STAGES = {"buc": "BUC", "dbc_released": "DBC as released", "dbc": "DBC"}


def further(benchmarks: Sequence[Benchmark]) -> str:
    """Return the table of measured first stages, extrapolated by N²."""
    sizes = (10**5, 10**6, 10**7)
    lines = ["| first stage of | on | measured | " + " | ".join(f"at 10^{len(str(n)) - 1}" for n in sizes) + " |"]
    lines.append("|---" * (3 + len(sizes)) + "|")
    for benchmark, (piece, name) in itertools.product(benchmarks, STAGES.items()):
        rows = [r for r in benchmark.rows if (r["piece"], r["clusters"], r["dim"]) == (piece, r["images"], DIM)]
        if not rows:  # only measured at tiny sizes
            continue
        largest = max(rows, key=lambda row: row["images"])
        seconds = [largest["seconds"]["ours"] * (n / largest["images"]) ** 2 for n in sizes]
        held = [n * (DIM + (n if piece == "dbc" else 0)) * FLOAT for n in sizes]
        cells = [f"{_span(s)}, {_bytes(b)}" for s, b in zip(seconds, held, strict=True)]
        at = f"{_figure(largest['seconds']['ours'])} s at {largest['images']:,}"
        lines.append(f"| {name} | {benchmark.column} | {at} | {' | '.join(cells)} |")
    return "\n".join(lines)


def simulation(images: int = 2000, dim: int = 64) -> str:
    """Return the table of how much of the exact ranking the lists find, on features like those of a run."""
    lines = ["| lists searched | pairs compared | BUC's closest pairs found |", "|---|---|---|"]
    features, _ = inputs.features(images, dim)
    merges = BUC.merges_per_stage(images)
    exact = closest_pairs(features, merges, torch.ones(images, images, dtype=torch.bool))
    lists = round(LISTS * images**0.5)
    for probed in (1, 2, 4, 8, 16, PROBED):
        reached = within_lists(features, lists, probed)
        found = closest_pairs(features, merges, reached)
        share = torch.isin(found, exact).double().mean()
        lines.append(f"| {probed} of {lists} | {100 * _share(reached):.0f}% | {100 * share:.0f}% |")
    return "\n".join(lines)


def _share(reached: Tensor) -> float:
    return float(reached.triu(1).sum()) / (len(reached) * (len(reached) - 1) / 2)


def within_lists(features: Tensor, lists: int, probed: int) -> Tensor:
    """Return which pairs are compared, (N, N) bool: one image's list is among the other's ``probed`` nearest lists.

    The centers of the lists are images drawn at random, as in the first step of k-means.
    """
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:lists]
    nearest = (features @ features[drawn].T).topk(min(probed, lists), dim=1).indices  # (N, probed)
    searched = torch.zeros(len(features), lists, dtype=torch.bool).scatter_(1, nearest, True)
    reached = searched[:, nearest[:, 0]]
    return reached | reached.T


def closest_pairs(features: Tensor, count: int, allowed: Tensor) -> Tensor:
    """Return the closest allowed pairs, as ``a * N + b`` with a < b: (count,) int64."""
    similarity = (features @ features.T).masked_fill(~allowed.triu(1), -torch.inf)
    return similarity.flatten().topk(count).indices


def _figure(value: float) -> str:
    """Format a number with two significant digits, or all digits before the point."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}" if value < 1000 else f"{float(f'{value:.2g}'):,.0f}"


def _bytes(value: float) -> str:
    size, unit = next((s, u) for s, u in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if value >= s)
    return f"{_figure(value / size)} {unit}"


def _span(seconds: float) -> str:
    units = [(86400 * 365, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")]
    size, unit = next(((s, u) for s, u in units if seconds >= 2 * s), (1, "seconds"))
    return f"{_figure(seconds / size)} {unit}"


def sections(rates: Rates) -> dict[str, str]:
    """Return the computed parts of the page, by the names of the marks around them."""
    return {"costs": table(rates), "breaks": breaks(rates), "lists": simulation(), "pairs": rates.pairs_from}


def renewed(page: str) -> str:
    """Return the page with the text between its marks recomputed."""
    benchmarks = [load_benchmark(file) for file in sorted(paths.STORED_BENCH.glob("*.json"))]
    rates = measured(H200, benchmarks)
    for name, text in {**sections(rates), "further": further(benchmarks)}.items():
        page = re.sub(rf"(<!-- {name} -->)(\s*).*?(\s*)(<!-- / -->)", rf"\1\g<2>{text}\3\4", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
