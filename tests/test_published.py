"""data/published.csv holds every number of both papers' tables, and the numbers their text states for the figures.

``method`` is the short canonical name; ``version`` tells the two states of BUC's results apart; ``setting`` is what
a figure varies; ``venue`` and ``labels`` are those of the table, blank where it has none; ``value`` is in percent, or a
count; ``printed`` is what the paper has where that differs; ``mark`` is bold, or starred (reproduced by the paper's
authors); ``note`` says what was mended and why.
"""

import pandas as pd
import pytest

from reprolib.paths import DATA
from reprolib.recipe import BUC

PUBLISHED = pd.read_csv(DATA / "published.csv", dtype={"printed": str})
MARKET, DUKE, MARS, DUKE_VIDEO = "market1501", "dukemtmc-reid", "mars", "dukemtmc-videoreid"
PERCENT = ("rank-1", "rank-5", "rank-10", "rank-20", "mAP", "top-1")
COUNTS = ("train_ids", "train_samples", "query_ids", "query_samples", "gallery_ids", "gallery_samples")
OF_FIGURES = ("best_regularizer_weight", "best_stage", "divergence_stage", "merges_per_stage", "num_clusters")
ROWS = {
    "BUC Table 1": 9 * 8 - 4,  # TJ-AIDL has dashes
    "BUC Table 2": 8 * 8 - 12,
    "BUC Table 3": 3 * 5,
    "BUC Table 4": 5,
    "BUC Fig. 3a": 3,
    "BUC Fig. 3b": 7,
    "BUC Fig. 4": 2,
    "DBC Table I": 4 * 6,
    "DBC Table II": 4 * 8,
    "DBC Table III": 9 * 8 - 4,
    "DBC Table IV": 8 * 8 - 10,
    "DBC Fig. 4": 1,
    "DBC Fig. 5": 5,
    "DBC Fig. 6": 2,
}


def number(exhibit: str, method: str | None, dataset: str, metric: str, setting: str | None = None) -> float:
    """The one value at these coordinates."""
    t = PUBLISHED[(PUBLISHED.exhibit == exhibit) & (PUBLISHED.dataset == dataset) & (PUBLISHED.metric == metric)]
    t = t[t.method.isna() if method is None else t.method == method]
    return (t if setting is None else t[t.setting == setting]).value.item()


def wide(exhibit: str) -> pd.DataFrame:
    """A table as printed: a row a method, a column a (dataset, metric); NaN where the paper has a dash."""
    return PUBLISHED[PUBLISHED.exhibit == exhibit].pivot(index="method", columns=["dataset", "metric"], values="value")


def test_columns_are_those_described_above():
    columns = "paper,exhibit,method,version,setting,venue,labels,dataset,metric,value,printed,mark,note"
    assert ",".join(PUBLISHED) == columns


def test_every_table_is_complete():
    assert PUBLISHED.exhibit.value_counts().to_dict() == ROWS
    assert (PUBLISHED.paper.str.upper() == PUBLISHED.exhibit.str.split().str[0]).all()


def test_no_number_stands_twice():
    assert not PUBLISHED.duplicated(["exhibit", "method", "setting", "dataset", "metric"]).any()


def test_names_are_canonical():
    assert set(PUBLISHED.dataset) == {MARKET, DUKE, MARS, DUKE_VIDEO, "cifar10"}
    assert set(PUBLISHED.metric) == {*PERCENT, *COUNTS, *OF_FIGURES}
    assert set(PUBLISHED.mark.dropna()) == {"bold", "starred"}


def test_pandas_reads_every_label_by_default():
    labels = PUBLISHED.labels[PUBLISHED.exhibit.isin(["BUC Table 1", "BUC Table 2", "DBC Table III", "DBC Table IV"])]
    assert set(labels) == {"none", "transfer", "oneex", "camera"}  # pandas would take "None" for a missing value


def test_percentages_and_counts_are_in_range():
    percent = PUBLISHED.metric.isin(PERCENT)
    assert PUBLISHED.value[percent].between(7.3, 90.2).all()  # UMDL's least mAP, DBC's greatest rank-10
    assert (PUBLISHED.value[PUBLISHED.metric.isin(COUNTS)] % 1 == 0).all()


@pytest.mark.parametrize(
    ("exhibit", "method", "dataset", "metric", "value"),
    [
        ("BUC Table 1", "BOW", MARKET, "rank-1", 35.8),
        ("BUC Table 1", "BOW", DUKE, "mAP", 8.3),
        ("BUC Table 1", "TJ-AIDL", DUKE, "mAP", 23.0),
        ("BUC Table 1", "BUC without regularizer", MARKET, "rank-5", 68.6),
        ("BUC Table 1", "BUC", MARKET, "rank-1", 61.9),
        ("BUC Table 1", "BUC", DUKE, "mAP", 22.1),
        ("BUC Table 2", "OIM", MARS, "rank-1", 33.7),
        ("BUC Table 2", "OIM", DUKE_VIDEO, "mAP", 43.8),
        ("BUC Table 2", "EUG", DUKE_VIDEO, "rank-5", 84.1),
        ("BUC Table 2", "BUC", MARS, "rank-1", 55.1),
        ("BUC Table 2", "BUC", DUKE_VIDEO, "mAP", 66.7),
        ("BUC Table 3", "Maximum", MARKET, "rank-1", 58.6),
        ("BUC Table 3", "Maximum", MARKET, "mAP", 25.0),
        ("BUC Table 3", "Minimum", MARKET, "rank-20", 82.0),
        ("BUC Table 3", "Minimum", MARKET, "mAP", 29.6),
        ("BUC Table 4", "S-CNN", "cifar10", "top-1", 72.7),
        ("BUC Table 4", "BUC", "cifar10", "top-1", 85.2),
        ("DBC Table I", None, MARKET, "train_ids", 751),
        ("DBC Table I", None, MARKET, "gallery_samples", 19732),
        ("DBC Table I", None, DUKE_VIDEO, "train_ids", 702),
        ("DBC Table I", None, DUKE_VIDEO, "gallery_samples", 2636),
        ("DBC Table II", "BUC without regularizer", MARKET, "rank-1", 62.9),
        ("DBC Table II", "BUC without regularizer", DUKE_VIDEO, "mAP", 50.8),
        ("DBC Table II", "DBC", MARKET, "rank-1", 69.2),
        ("DBC Table II", "DBC", DUKE_VIDEO, "mAP", 66.1),
        ("DBC Table III", "BOW", MARKET, "rank-1", 35.8),
        ("DBC Table III", "EUG", MARKET, "rank-10", 83.5),
        ("DBC Table III", "DBC", MARKET, "rank-1", 69.2),
        ("DBC Table III", "DBC", DUKE, "mAP", 30.0),
        ("DBC Table IV", "OIM", MARS, "rank-1", 33.7),
        ("DBC Table IV", "EUG", MARS, "mAP", 42.6),
        ("DBC Table IV", "DBC", MARS, "rank-10", 85.1),
        ("DBC Table IV", "DBC", DUKE_VIDEO, "mAP", 66.1),
    ],
)
def test_cells_read_by_hand(exhibit, method, dataset, metric, value):
    assert number(exhibit, method, dataset, metric) == value


@pytest.mark.parametrize(
    ("exhibit", "total"),
    [
        ("BUC Table 1", 2943.4),
        ("BUC Table 2", 2945.8),
        ("BUC Table 3", 947.2),
        ("BUC Table 4", 403.8),
        ("DBC Table I", 112882 - 16522 + 12936),  # as printed, then with its slip mended
        ("DBC Table II", 1623.0),
        ("DBC Table III", 3155.4),
        ("DBC Table IV", 3181.3),
    ],
)
def test_sums_of_a_second_reading(exhibit, total):
    assert PUBLISHED.value[PUBLISHED.exhibit == exhibit].sum() == pytest.approx(total, abs=0.01)


@pytest.mark.parametrize("exhibit", [e for e in ROWS if "Table" in e and e not in ("BUC Table 4", "DBC Table I")])
def test_rank_k_grows_with_k_and_map_stays_below_rank_1(exhibit):
    table = wide(exhibit)
    for dataset in table.columns.unique("dataset"):
        ranks = table[dataset].filter(["rank-1", "rank-5", "rank-10", "rank-20"]).dropna()
        assert len(ranks) >= 3
        assert (ranks.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
        assert (table[dataset]["mAP"] < table[dataset]["rank-1"])[table[dataset]["mAP"].notna()].all()


def test_bold_is_the_best_of_its_column():
    tables = PUBLISHED[PUBLISHED.exhibit.str.contains("Table") & PUBLISHED.metric.isin(PERCENT)]
    best = tables.groupby(["exhibit", "dataset", "metric"]).value.transform("max") == tables.value
    assert best.equals(tables.mark == "bold")


@pytest.mark.parametrize(
    ("exhibit", "dataset", "metric", "better", "worse", "gain"),
    [
        ("BUC Table 1", MARKET, "rank-1", "BUC", "OIM", 23.9),
        ("BUC Table 1", MARKET, "mAP", "BUC", "OIM", 15.6),
        ("BUC Table 1", DUKE, "rank-1", "BUC", "OIM", 15.9),  # the text says 15.5
        ("BUC Table 1", DUKE, "mAP", "BUC", "OIM", 10.8),
        ("BUC Table 1", MARKET, "rank-1", "BUC", "TJ-AIDL", 3.7),
        ("BUC Table 1", MARKET, "mAP", "BUC", "TJ-AIDL", 3.1),
        ("BUC Table 1", MARKET, "rank-1", "BUC", "BUC without regularizer", 7.4),
        ("BUC Table 1", DUKE, "rank-1", "BUC", "BUC without regularizer", 1.6),
        ("BUC Table 2", MARS, "rank-1", "BUC", "OIM", 21.4),
        ("BUC Table 2", MARS, "mAP", "BUC", "OIM", 15.9),
        ("BUC Table 2", DUKE_VIDEO, "rank-1", "BUC", "OIM", 23.7),
        ("BUC Table 2", DUKE_VIDEO, "mAP", "BUC", "OIM", 22.9),
        ("BUC Table 4", "cifar10", "top-1", "BUC", "NID", 4.4),
        ("DBC Table III", MARKET, "rank-1", "DBC", "BUC", 3.0),
        ("DBC Table III", MARKET, "rank-1", "DBC", "TJ-AIDL", 11.0),
        ("DBC Table III", MARKET, "rank-1", "DBC", "EUG", 13.4),
        ("DBC Table IV", DUKE_VIDEO, "rank-1", "DBC", "BUC", 6.0),
        ("DBC Table IV", DUKE_VIDEO, "mAP", "DBC", "BUC", 4.2),
    ],
)
def test_gains_of_the_text_follow_from_the_tables(exhibit, dataset, metric, better, worse, gain):
    difference = number(exhibit, better, dataset, metric) - number(exhibit, worse, dataset, metric)
    assert difference == pytest.approx(gain)


@pytest.mark.parametrize(
    ("buc", "dbc", "methods"),
    [
        ("BUC Table 1", "DBC Table III", ["BOW", "OIM", "UMDL", "PUL", "SPGAN", "TJ-AIDL"]),
        ("BUC Table 2", "DBC Table IV", ["OIM", "DGM+IDE", "Stepwise", "RACE", "DAL"]),
    ],
)
def test_both_papers_quote_the_same_numbers(buc, dbc, methods):
    pd.testing.assert_frame_equal(wide(buc).loc[methods], wide(dbc).loc[methods])


def test_dbc_ablation_repeats_its_comparison():
    comparison = pd.concat([wide("DBC Table III"), wide("DBC Table IV")], axis=1)
    ablation = wide("DBC Table II").loc[["BUC", "DBC"]]
    pd.testing.assert_frame_equal(comparison.loc[["BUC", "DBC"], ablation.columns], ablation)


def test_every_result_of_buc_says_its_version():
    of_buc = PUBLISHED.method.isin(["BUC", "BUC without regularizer", "Minimum", "Maximum", "Centroid"])
    expected = PUBLISHED.paper.map({"buc": "buc-paper", "dbc": "buc-before-fix"}).where(of_buc)
    assert PUBLISHED.version.equals(expected)


def test_what_differs_from_print_is_listed():
    differs = PUBLISHED[PUBLISHED.printed.notna()]
    assert list(zip(differs.exhibit, differs.dataset, differs.printed, differs.value, strict=True)) == [
        ("DBC Table I", MARKET, "16522", 12936),
        ("DBC Table III", DUKE, "528.8", 28.8),
        ("DBC Table III", DUKE, "4604", 46.4),
        ("DBC Table IV", MARS, "54", 54.0),
        ("DBC Fig. 5", DUKE, "800+", 800),
    ]


def test_figures_agree_with_tables_and_settings():
    for weight, method in (("0", "BUC without regularizer"), ("0.003", "BUC")):
        in_figure = number("BUC Fig. 3a", "BUC", MARKET, "rank-1", f"regularizer_weight={weight}")
        assert in_figure == number("BUC Table 1", method, MARKET, "rank-1")
    for metric in ("rank-1", "mAP"):
        best = number("BUC Table 1", "BUC", MARKET, metric)
        assert number("BUC Fig. 3b", "BUC", MARKET, metric, "stage=16") == best
        assert number("BUC Table 3", "Minimum", MARKET, metric) == best
    num_images = number("DBC Table I", None, MARKET, "train_samples")
    assert number("BUC Fig. 3b", "BUC", MARKET, "num_clusters", "stage=0") == num_images
    clusters_left = num_images - 16 * BUC.merges_per_stage(num_images)
    assert number("BUC Fig. 3b", "BUC", MARKET, "num_clusters", "stage=16") == clusters_left == 2600
