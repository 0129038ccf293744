"""What figures draw is what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from reprolib import BUC, DBC, OIM, figures, results
from reprolib.figures import curves, points
from reprolib.recipe import BUC_UNREGULARIZED


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a function of ``figures`` would have saved."""
    monkeypatch.setattr(curves, "save", lambda name: None)
    yield plt.gcf
    plt.close("all")


def runs(recipe, *, column="data · network", stages=4, seeds=(0, 1), kept=2):
    """Rows of ``results.tidy``: rank-1 is 10 a stage and 2 a seed."""
    rows = [
        {"column": column, "recipe": recipe.name, "seed": seed, "stage": stage, "num_clusters": 100 - stage}
        | {"rank-1": 10.0 * stage + 2 * seed, "mAP": 5.0 * stage, "kept": stage == kept}
        for seed in seeds
        for stage in range(stages)
    ]
    return pd.DataFrame(rows)


def bars_of(ax):
    return [patch.get_height() for patch in ax.patches if patch.get_width() and patch.get_height()]


def test_a_curve_is_the_mean_over_seeds_and_its_band_reaches_from_the_least_to_the_greatest(drawn):
    figures.stage_curves(runs(BUC), "x", metrics=("rank-1",))
    (ax,) = drawn().axes
    assert ax.lines[0].get_ydata().tolist() == [1, 11, 21, 31]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band} >= {(0, 0), (0, 2), (3, 30), (3, 32)}


def test_a_curve_ends_where_a_seed_ends(drawn):
    data = pd.concat([runs(BUC, seeds=[0]), runs(BUC, seeds=[1], stages=2), runs(DBC)])
    figures.stage_curves(data, "x", metrics=("rank-1",))
    short, whole = drawn().axes[0].lines
    assert short.get_xdata().tolist() == [0, 1]
    assert whole.get_xdata().tolist() == [0, 1, 2, 3]


def test_bars_are_means_of_the_stage_kept_and_dots_are_seeds(drawn):
    figures.bars(pd.concat([runs(BUC), runs(DBC, kept=3)]), "x", metrics=("rank-1",))
    (ax,) = drawn().axes
    assert bars_of(ax) == [21, 31]
    dots = np.concatenate([np.asarray(dots.get_offsets())[:, 1] for dots in ax.collections])
    assert sorted(dots) == [20, 22, 30, 32]
    assert [text.get_text() for text in drawn().legends[0].get_texts()] == ["BUC", "DBC"]


def test_the_papers_bars_are_hollow_and_stand_in_a_panel_of_their_own(drawn):
    methods = {"OIM": OIM, "BUC without regularizer": BUC_UNREGULARIZED, "BUC": BUC}
    paper = results.as_published("BUC Table 1", methods)
    figures.bars(pd.concat([runs(OIM), runs(BUC)]), "x", paper=paper)
    first, second = drawn().axes
    assert bars_of(first) == pytest.approx([38.0, 14.0, 54.5, 24.1, 61.9, 29.6])
    assert not any(patch.get_facecolor()[3] for patch in first.patches)
    assert first.get_xlabel() == "the paper: market1501\nresnet50 ImageNet"
    assert len(first.collections) == 0  # no dots: the paper has no seeds
    assert len(bars_of(second)) == 4
    assert all(patch.get_facecolor()[3] for patch in second.patches)


def test_the_papers_numbers_are_those_of_the_dataset_asked_for():
    table = results.as_published("BUC Table 1", {"BUC": BUC}, dataset="dukemtmc-reid")
    assert table["rank-1"].tolist() == [40.4]
    assert table["recipe"].tolist() == ["buc"]


def test_a_weights_curve_is_joined_only_where_three_were_run(drawn):
    weights = {BUC.with_weight(w).name: w for w in (0.01, 0.02)} | {BUC_UNREGULARIZED.name: 0.0}
    some = [runs(BUC_UNREGULARIZED), runs(BUC.with_weight(0.01), kept=3)]
    more = [part.assign(column="other · network") for part in [*some, runs(BUC.with_weight(0.02), kept=1)]]
    figures.weight_curve(pd.concat([*some, *more]), weights, "x", metrics=("rank-1",))
    two, three = (ax.lines[0] for ax in drawn().axes)
    assert two.get_ydata().tolist() == [21, 31]
    assert two.get_linestyle() == "None"
    assert three.get_xdata().tolist() == [0, 1, 2]
    assert three.get_ydata().tolist() == [21, 31, 11]
    assert three.get_linestyle() == "-"


def test_changes_stand_in_their_order_the_first_on_top(drawn):
    changes = [("zeros", 1.0), ("zeros", 3.0), ("head", -4.0)]
    data = pd.DataFrame(changes, columns=["change", "points"]).assign(column="data · network")
    figures.changes(data, "x", of="dbc")
    (ax,) = drawn().axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["zeros", "head"]
    assert ax.yaxis_inverted()
    assert [patch.get_width() for patch in ax.patches] == [2, -4]


def test_an_example_cluster_is_right_or_wrong_or_there_is_none():
    pids = np.array([0, 0, 1, 1, 2, 2])
    assert points.example_clusters(np.arange(6), pids) == {"right": 0}
    assert points.example_clusters(np.array([0, 0, 1, 1, 1, 1]), pids) == {"right": 0, "wrong": 1}
    assert points.example_clusters(np.zeros(6, int), pids) == {"wrong": 0}
    assert points.example_clusters(np.array([0, 0, 1, 1]), np.array([-1, -1, 0, 0])) == {"right": 1}


def test_shares_are_drawn_in_percent(drawn):
    data = pd.DataFrame({"panel": "BUC", "one": [0.5, 0.25], "other": [0.1, 0.2]}, index=[0, 1])
    figures.shares(data, "x")
    one, other = drawn().axes[0].lines
    assert one.get_ydata().tolist() == [50, 25]
    assert other.get_ydata().tolist() == [10, 20]
