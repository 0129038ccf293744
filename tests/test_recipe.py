"""The named recipes say what the papers and the programs say."""

import json
from dataclasses import fields, replace

import pytest

from reprolib import BUC, BUC_RELEASED, DBC, DBC_RELEASED, OIM, Criterion, Recipe
from reprolib.recipe import RECIPES, SUPERVISED


def differences(a, b):
    return {f.name for f in fields(Recipe) if getattr(a, f.name) != getattr(b, f.name)} - {"name"}


def test_the_number_of_stages_and_merges_is_that_of_market1501():
    assert BUC_RELEASED.num_stages(12936) == 19
    assert BUC.num_stages(12936) == 20  # while C > m: 12,936 - 19 * 646 = 662 is still more than 646
    assert BUC.merges_per_stage(12936) == 646
    assert 12936 - 16 * 646 == 2600  # BUC Section 4.5


def test_the_papers_settings_are_the_defaults():
    assert (BUC.criterion.linkage, BUC.criterion.regularizer, BUC.criterion.regularizer_weight) == (
        "minimum",
        "size",
        0.003,
    )
    assert (DBC.criterion.linkage, DBC.criterion.regularizer, DBC.criterion.ranking) == (
        "average",
        "dispersion",
        "each_merge",
    )
    for recipe in (BUC, DBC):
        assert (recipe.temperature, recipe.batch_size, recipe.dropout, recipe.first_stage_epochs) == (0.1, 16, 0.5, 20)
        assert recipe.table_start == "zeros"
        assert recipe.criterion.distance == "euclidean"


def test_each_released_twin_differs_only_where_the_program_does():
    shared = {"criterion", "stage_rule", "normalize_table", "dropout_position", "learning_rate_drop"}
    assert differences(BUC, BUC_RELEASED) == shared
    assert differences(DBC, DBC_RELEASED) == shared | {"embedding_dim", "embedding_layers", "table_start"}
    assert DBC_RELEASED.criterion.regularizer == "none"  # λ's term is computed and then not ranked


def test_oim_is_buc_without_merging():
    assert differences(BUC, OIM) == {"criterion"}
    assert OIM.criterion is None


def test_only_the_supervised_bound_starts_from_identities():
    assert [r.name for r in RECIPES.values() if r.start == "identities"] == ["supervised"]


def test_an_unknown_choice_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'minimum', 'maximum', 'centroid', 'average'"):
        Criterion(linkage="ward")
    with pytest.raises(ValueError, match="regularizer_weight=nan"):
        Criterion(regularizer_weight=float("nan"))
    with pytest.raises(ValueError, match="has no regularizer to weight"):
        DBC_RELEASED.with_weight(0.1)
    with pytest.raises(ValueError, match="table_start"):
        replace(BUC, table_start="ones")


def test_a_linkage_of_ones_own_is_recorded_by_its_name_and_ranked_once_alone():
    def ward(a, b, distance):
        return None

    assert replace(BUC, criterion=Criterion(ward)).settings()["criterion"]["linkage"] == "ward"
    with pytest.raises(ValueError, match="ranking='once'"):
        Criterion(ward, ranking="each_merge")
    with pytest.raises(ValueError, match="'minimum', 'maximum', 'centroid', 'average', or a function"):
        Criterion("ward")


def test_what_training_is_told_is_what_the_programs_tell_it():
    assert DBC.criterion.regularizer_weight == 0.1
    assert (BUC.momentum, BUC.weight_decay, BUC.frames_per_tracklet, BUC.frames_at_most) == (0.9, 5e-4, 16, 900)
    assert (SUPERVISED.first_stage_epochs, SUPERVISED.learning_rate_drop) == (40, 30)
    assert {r.augmentation for r in RECIPES.values() if "cifar10" in r.name} == {"instance"}


def test_a_few_samples_are_merged_one_by_one():
    assert BUC.merges_per_stage(16) == 1
    assert BUC.num_stages(16) == 15


def test_a_field_of_a_recipe_or_of_its_criterion_is_changed_by_its_name():
    changed = BUC.changed(regularizer_weight=0.5, merge_percent=0.1)
    assert changed == replace(BUC, merge_percent=0.1, criterion=replace(BUC.criterion, regularizer_weight=0.5))
    with pytest.raises(ValueError, match="'lambda' is not a field of a recipe; use one of "):
        BUC.changed(**{"lambda": 1})
    with pytest.raises(ValueError, match="oim does not merge, so it has no regularizer_weight"):
        OIM.with_weight(0.1)
    with pytest.raises(ValueError, match="oim does not merge, so it has no linkage"):
        OIM.with_linkage("maximum")


@pytest.mark.parametrize(
    ("recipe", "changes", "why"),
    [
        (BUC, {"dispersion_update": "exact"}, "buc: dispersion_update has no effect, because the regularizer is not"),
        (BUC, {"dispersion": "mean"}, "dispersion has no effect, because the regularizer is not the dispersion"),
        (DBC, {"absorbed": "skip"}, "absorbed has no effect, because pairs are ranked after each merge"),
        (DBC, {"ranking": "once", "dispersion_update": "exact"}, "because pairs are ranked once a stage"),
        (BUC, {"embedding_between": "nothing"}, "because the head has one layer"),
        (OIM, {"table_start": "means"}, "oim: table_start has no effect, because nothing is merged"),
    ],
)
def test_a_change_without_effect_is_refused(recipe, changes, why):
    with pytest.raises(ValueError, match=why):
        recipe.changed(**changes)
    assert BUC.changed(embedding_layers=2, embedding_between="nothing").embedding_between == "nothing"


def test_a_field_that_is_newer_than_the_stored_records_does_not_rename_their_runs():
    assert "embedding_between" not in DBC.settings()
    assert DBC.changed(embedding_between="nothing").settings()["embedding_between"] == "nothing"


def test_one_and_one_point_nothing_are_one_setting():
    for one, other in (
        (replace(BUC, temperature=1), replace(BUC, temperature=1.0)),
        (DBC.changed(dropout=0), DBC.changed(dropout=0.0)),
    ):
        assert json.dumps(one.settings()) == json.dumps(other.settings())
    assert json.dumps(DBC.with_weight(1).settings()) == json.dumps(DBC.with_weight(1.0).settings())
