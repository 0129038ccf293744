"""The rows of the benchmark table: piece, size, and the alternatives measured beside ours."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

LITERAL, SCIPY, SKLEARN, TORCHMETRICS = "literal loop", "scipy", "scikit-learn", "torchmetrics"


@dataclass(frozen=True)
class Row:
    """One piece at one size."""

    piece: str  # a recipe whose stage is run, "minimum tree", "average tree", "ranking" or "table update"
    images: int  # N; for a ranking, in the gallery; for a table update, in the batch
    dim: int  # d
    clusters: int = 0  # C; for a table update, the rows of the table
    queries: int = 0  # Q, for a ranking
    labels: str = ""  # for a table update: "distinct", "pairs" or "same"
    against: tuple[str, ...] = ()  # alternatives that do the same work
    repetitions: int = 5
    exact: bool = False  # whether to compare the result with that of products in float64
    note: str = ""

    def tiny(self) -> "Row":
        """Return the same row at a tiny size, which loads everything in no time."""
        if self.piece == "table update":
            return self
        clusters = 40 if self.clusters == self.images else 20
        return replace(self, images=40, dim=8, clusters=clusters, queries=min(4, self.queries))


@dataclass(frozen=True)
class Sizes:
    """The sizes used in the rows."""

    dim: int
    market: int  # Market-1501's training set
    growth: tuple[int, ...]  # other N at which time and memory are measured
    matrix: int  # largest N for the stage that holds a matrix of all clusters
    large: int  # an N that takes minutes
    literal: tuple[int, ...]  # N at which literal loops are measured
    loops: tuple[int, int, int]  # N of literal loops in a low dimension: ranked once, ranked again; and the dimension
    tree: int  # N of complete trees
    ranking: tuple[int, int]  # queries, gallery
    small_ranking: tuple[int, int]
    table: int  # rows of the lookup table
    million: tuple[int, int] = (0, 0)  # N and d of one more stage


CPU = Sizes(
    dim=2048,
    market=12_936,
    growth=(1000, 2000, 4000, 8000, 25_000),
    matrix=25_000,
    large=50_000,
    literal=(125, 250, 500),
    loops=(2000, 200, 64),
    tree=2000,
    ranking=(3368, 15_913),
    small_ranking=(50, 1000),
    table=12_936,
)
CUDA = replace(CPU, growth=(4000, 25_000, 50_000, 100_000), matrix=50_000, large=200_000, million=(1_000_000, 512))
QUICK = Sizes(
    dim=64,
    market=300,
    growth=(100, 200),
    matrix=300,
    large=600,
    literal=(30,),
    loops=(60, 30, 16),
    tree=100,
    ranking=(40, 200),
    small_ranking=(5, 60),
    table=300,
    million=(700, 32),
)


def without_references(sizes: Sizes) -> Sizes:
    """Remove the rows measured beside literal Python loops and libraries, which run only on a CPU."""
    return replace(sizes, literal=(), loops=(0, 0, 0), tree=0, small_ranking=(0, 0))


def rows(sizes: Sizes, *, up_to: int | None = None) -> list[Row]:
    """Return all rows, or only those with at most ``up_to`` images."""
    found = [*_stages(sizes), *_references(sizes), *_rankings(sizes), *_updates(sizes)]
    return [row for row in found if 0 < row.images <= (up_to or row.images)]


def _stages(s: Sizes) -> Iterator[Row]:
    for piece in ("buc", "dbc_released", "dbc"):
        for images in sorted((*s.growth, s.market)):
            if piece != "dbc" or images <= s.matrix:
                yield Row(piece, images, s.dim, clusters=images, exact=images <= s.market)
        yield Row(piece, s.market, s.dim, clusters=s.market // 2, exact=True)
    for piece in ("buc", "dbc_released"):
        yield Row(piece, s.large, s.dim, clusters=s.large, repetitions=3, exact=True)
    yield Row("buc", s.million[0], s.million[1], clusters=s.million[0], repetitions=3, exact=True)


def _references(s: Sizes) -> Iterator[Row]:
    for images in s.literal:
        for piece in ("buc", "dbc_released"):
            yield Row(piece, images, s.dim, clusters=images, against=(LITERAL,))
    once, again, dim = s.loops
    low = f"d = {dim}, at which a literal loop takes seconds"
    for piece in ("buc", "dbc_released"):
        yield Row(piece, once, dim, clusters=once, against=(LITERAL,), note=low)
    yield Row("dbc", again, dim, clusters=again, against=(LITERAL,), note=f"{low}; it ranks anew at every merge")
    for piece in ("minimum tree", "average tree"):
        yield Row(piece, s.tree, s.dim, clusters=s.tree, against=(SCIPY,), note="no regularizer, all N − 1 merges")


def _rankings(s: Sizes) -> Iterator[Row]:
    (queries, gallery), (few, small) = s.ranking, s.small_ranking
    yield Row("ranking", gallery, s.dim, queries=queries)
    others = (LITERAL, SKLEARN, TORCHMETRICS)
    yield Row(
        "ranking", small, s.dim, queries=few, against=others, note="no junk; each library gives one of the two APs"
    )


def _updates(s: Sizes) -> Iterator[Row]:
    for labels in ("distinct", "pairs", "same"):
        yield Row("table update", 16, s.dim, clusters=s.table, labels=labels, against=(LITERAL,))
