"""The audit's recipes differ where they say they do, and its figures follow from the records."""

from dataclasses import asdict
from itertools import permutations

import numpy as np
import pytest
from test_results import record

from reprolib import BUC, DBC, DBC_RELEASED, audit, results


def flat(recipe):
    settings = asdict(recipe)
    return {k: v for k, v in settings.items() if k != "criterion"} | settings["criterion"]


def moved(one, other):
    a, b = flat(one), flat(other)
    return {k for k in a if a[k] != b[k]} - {"name"}


def test_the_differences_are_all_there_are_between_paper_and_program():
    named = {f.removeprefix("criterion.") for d in audit.DIFFERENCES for f in d.fields}
    assert moved(DBC, DBC_RELEASED) == named | {"stage_rule"}  # one stage more: read off the records


@pytest.mark.parametrize(("side", "base"), [(audit.paper_side, DBC), (audit.program_side, DBC_RELEASED)])
def test_each_recipe_takes_one_difference_alone(side, base):
    recipes = side()
    for difference in audit.DIFFERENCES:
        of_it = [recipe for name, recipe in recipes.items() if name.startswith(difference.name + ": ")]
        assert len(of_it) == (0 if base is DBC_RELEASED and difference.name == "dispersion" else 1)
        for changed in of_it:
            assert moved(base, changed) <= {f.removeprefix("criterion.") for f in difference.fields}
            assert moved(base, changed)
    assert len({r.name for r in recipes.values()}) == len(recipes)


def test_a_price_is_the_change_of_the_stage_kept_in_the_same_seed():
    change = audit.repaired(BUC)
    records = [record(BUC, 0.5), record(BUC, 0.4, seed=1), record(change, 0.65), record(change, 0.3, seed=1)]
    table = audit.prices([*records, record(BUC, 0.9, seed=2)], BUC, {"new means": change})
    assert table["points"].tolist() == pytest.approx([15, -10])
    assert audit.summary(table).loc["new means"].tolist() == ["+2.5 ± 17.7 (1/2)"]


def test_rows_of_a_stale_table_by_hand():
    # Sorted by identity: images 0 1 2 are of one person, 3 4 5 of another; 0 and 1 merge, and all labels move up.
    pids, before, after = np.array([0, 0, 0, 1, 1, 1]), np.arange(6), np.array([0, 0, 1, 2, 3, 4])
    seen = audit.rows_seen(before, after, pids)
    assert seen["own"] == 1 / 6  # image 0
    # Images 1, 2, 4 and 5 find the row of an image of their own person; image 3 finds the other person's.
    assert seen["same identity"] == pytest.approx(4 / 6)
    assert seen["chance"] == pytest.approx(5 / 6 * 2 / 5)


def test_rows_of_a_stale_table_tell_nothing_when_the_order_is_random():
    rng = np.random.default_rng(0)
    pids = rng.permutation(np.repeat(np.arange(40), 25))
    before, after = np.arange(1000), np.maximum(np.arange(1000) - 50, 0)
    seen = audit.rows_seen(before, after, pids)
    assert seen["same identity"] == pytest.approx(seen["chance"], abs=0.02)


def test_losses_are_against_the_best_stage_on_the_test_set():
    run = record(BUC, 0.0)
    curve, left_out = (0.4, 0.35, 0.5, 0.3), (0.1, 0.1, 0.2, 0.1)
    run.stages = [
        run.stages[0] | {"stage": k, "metrics": {"rank-1": rank_1}, "validation": {"rank-1": other}}
        for k, (rank_1, other) in enumerate(zip(curve, left_out, strict=True))
    ]
    losses = audit.selection_losses([run]).set_index("rule")
    assert losses["last"].tolist() == pytest.approx([20, 20, 20])
    lost = {"last": 20, "first drop": 10, "validation": 0}  # this record has no silhouette
    assert losses["lost"].to_dict() == pytest.approx(lost)


def test_clusters_are_numbered_by_their_first_image_in_an_order():
    labels = np.array([[0, 1, 2, 3], [0, 1, 0, 2]])
    assert audit.counted_in(labels, np.arange(4)).tolist() == labels.tolist()
    assert audit.counted_in(labels, np.array([3, 2, 1, 0])).tolist() == [[3, 2, 1, 0], [1, 2, 1, 0]]


def pairs_that_share_a_row(before, after, pids, *, of_one_identity: bool) -> float:
    """Literally: over the pairs in different clusters, the chance that an image drawn from each's row is of one."""
    shares = []
    for i, j in permutations(range(len(pids)), 2):
        if after[i] != after[j] and (pids[i] == pids[j] or not of_one_identity):
            one, other = pids[before == after[i]], pids[before == after[j]]
            shares.append(np.mean([a == b for a in one for b in other]))
    return np.mean(shares) if shares else 0


@pytest.mark.parametrize("seed", range(5))
def test_shared_rows_equal_a_literal_count(seed):
    rng = np.random.default_rng(seed)
    pids, before = rng.integers(0, 4, 20), np.unique(rng.integers(0, 15, 20), return_inverse=True)[1]
    merged = np.arange(before.max() + 1)
    merged[rng.choice(len(merged), 3, replace=False)] = merged[0]
    after = np.unique(merged[before], return_inverse=True)[1]
    seen = audit.rows_shared(before, after, pids)
    assert seen["of one identity"] == pytest.approx(pairs_that_share_a_row(before, after, pids, of_one_identity=True))
    assert seen["any two"] == pytest.approx(pairs_that_share_a_row(before, after, pids, of_one_identity=False))


def test_images_sorted_by_identity_are_led_together_and_shuffled_ones_are_not():
    pids = np.repeat(np.arange(40), 25)
    labels = np.stack([np.arange(1000), np.maximum(np.arange(1000) - 50, 0)])
    shuffled = np.random.default_rng(0).permutation(1000)
    table = audit.rows_by_stage(record(DBC_RELEASED, 0.3), labels[:, shuffled], pids[shuffled])
    shares = table.set_index("order")["of one identity"]
    assert shares["sorted by identity"] > 0.9
    assert shares["shuffled"] == pytest.approx(table["any two"].mean(), abs=0.02)


def test_both_average_precisions_stand_beside_each_other():
    runs = [record(BUC, 0.5, seed=seed) for seed in (0, 1)]
    for run, step in zip(runs, (0.26, 0.28), strict=True):
        run.stages[1]["metrics"]["mAP_step"] = step
    (row,) = audit.average_precision(runs).to_dict("records")
    assert row == {"trapezoid": 25.0, "step sum": 27.0, "difference": 2.0, "± over runs": 1.4, "runs": 2}


def test_rows_of_a_run_on_sorted_images_are_not_counted():
    stored = [record for record in results.stored() if record.settings["recipe"].get("train_order") == "sorted"]
    with pytest.raises(ValueError, match="its images were sorted"):
        audit.rows_by_stage(stored[0], np.zeros((2, 4), int), np.zeros(4, int))
