"""What may be concluded from records: columns are never mixed, verdicts follow from numbers, nothing is half-read."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torchvision

from reprolib import BUC, DBC, OIM, paths, results, state, verdicts
from reprolib.claims import GOOD_IN_CLUSTERS
from reprolib.datasets import DatasetError
from reprolib.recipe import BUC_UNREGULARIZED
from reprolib.record import RecordError, RunRecord, commit, load_record, versions, write_json
from reprolib.tables import published
from reprolib.verdicts import conclude, judge, judge_all

METHODS = {"OIM": OIM, "BUC without regularizer": BUC_UNREGULARIZED, "BUC": BUC}


def record(recipe, rank_1, *, seed=0, dataset="synthetic", first=0.2, **settings_):
    def stage(number, value):
        metrics = {
            "rank-1": value,
            "rank-5": 0.9,
            "rank-10": 0.9,
            "rank-20": 0.9,
            "mAP": value / 2,
            "mAP_step": value / 2,
        }
        return {
            "stage": number,
            "num_clusters": 10 - number,
            "losses": [1.0],
            "metrics": metrics | {"num_valid_queries": 5},
            "quality": {
                "purity": 1.0,
                "adjusted_rand_index": 0.5,
                "pair_recall": 0.5,
                "num_singletons": 10 - 2 * number,
                "largest_cluster": 1 + number,
                "size_histogram": [[1, 10 - 2 * number], [2, number]],
            },
            "seconds": {"train": 1.0},
        }

    settings = {
        "dataset": dataset,
        "fingerprint": "0",
        "identities": None,
        "recipe": recipe.settings(),
        "backbone": "resnet18",
        "weights": "none",
        "image_size": [64, 32],
        "seed": seed,
    }
    settings |= settings_
    provenance = {
        "device": "a CPU",
        "threads": 1,
        "precision": "float32",
        "versions": {"torch": "2"},
        "commit": "c",
        "seconds": 60,
    }
    return RunRecord(settings, provenance, {"rank-1": 0.1}, [stage(0, first), stage(1, rank_1)], selected=1)


def write(*records):
    for r in records:
        r.save()
    paths.RUNS.rename(paths.STORED_RUNS)


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([1.0, 2.0, 0.1], "reproduced"),
        ([5.0, 1.0, -1.0], "inconclusive"),
        ([-3.0, 1.0], "inconclusive"),
        ([-5.0, -1.0, -0.1], "not reproduced"),
        ([0.0], "not reproduced"),  # a tie
        ([3e-15], "not reproduced"),
        ([], "not attempted"),
    ],
)
def test_a_claim_is_reproduced_if_it_holds_in_every_seed_and_not_if_it_holds_in_none(margins, expected):
    assert judge(margins) == expected


@pytest.mark.parametrize(
    ("verdicts_", "expected"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["not reproduced", "not reproduced"], "not reproduced"),
        (["reproduced", "not reproduced"], "partly"),
        (["reproduced", "inconclusive", "not reproduced"], "partly"),
        (["reproduced", "inconclusive"], "inconclusive"),
        (["inconclusive", "not reproduced"], "inconclusive"),
        ([], "not attempted"),
    ],
)
def test_over_all_datasets_a_claim_is_partly_reproduced_if_the_datasets_disagree(verdicts_, expected):
    assert judge_all(verdicts_) == expected


def test_a_lead_is_over_the_stages_that_both_runs_have():
    longer = record(BUC, 0.6, first=0.5)
    longer.stages.append(longer.stages[-1] | {"stage": 2})
    assert results.ahead_from(0, BUC, OIM)([longer, record(OIM, 0.3, first=0.3)]) == [pytest.approx(25)]
    assert results.ahead_from(2, BUC, OIM)([longer, record(OIM, 0.3)]) == []


def test_the_papers_claims_come_before_questions_of_our_own(results_folder, capsys):
    claim = results.Claim("BUC is above OIM", results.higher(BUC, OIM))
    for exhibit in ("Beside BUC Table 1", "BUC Table 1", "Audit: order", "DBC Table II"):
        results.verdict(claim, [record(BUC, 0.5), record(OIM, 0.3)], exhibit=exhibit, expected="reproduced")
    cards = results.scorecard(paths.VERDICTS)
    assert cards["exhibit"].tolist() == ["BUC Table 1", "DBC Table II", "Audit: order", "Beside BUC Table 1"]
    assert cards["ours"].tolist() == [False, False, True, True]


def test_a_record_that_is_missing_is_made_by_the_command_given(results_folder):
    loading = partial(results.load_or_run, dataset="market1501", seeds=[3], identities=50, image_size=(64, 32))
    with pytest.raises(RecordError) as error:
        loading([BUC])
    command = "reprolib run --recipe buc --dataset market1501 --seed 3 --identities 50 --image-size 64x32"
    assert str(error.value).endswith(command)
    with pytest.raises(RecordError, match=r'buc_weight_0\.7 on market1501, seed 3; set source = "run"$'):
        loading([BUC.with_weight(0.7)])


def test_a_setting_that_does_not_exist_is_refused(results_folder):
    with pytest.raises(ValueError, match=r"unknown settings \['identites'\]"):
        results.load_or_run([BUC], dataset="synthetic", identites=24)
    with pytest.raises(ValueError, match=r"unknown settings \['seed'\]"):
        results.load_or_run([BUC], dataset="synthetic", seed=2)


def test_two_records_of_one_seed_in_a_column_are_an_error_that_names_both_records(results_folder):
    twice = record(BUC, 0.5), record(BUC, 0.6, fingerprint="1")
    for made in twice:
        made.save()
    paths.RUNS.rename(paths.STORED_RUNS)
    loading = partial(results.load_or_run, [BUC], dataset="synthetic", backbone="resnet18", weights="none")
    for reading in (loading, partial(results.higher(BUC, OIM), list(twice))):
        with pytest.raises(RecordError) as error:
            reading()
        assert all(r.name in str(error.value) for r in twice)


def test_margins_are_taken_seed_by_seed():
    records = [record(BUC, 0.5, seed=0), record(BUC, 0.4, seed=1), record(OIM, 0.3, seed=0), record(OIM, 0.45, seed=1)]
    assert results.higher(BUC, OIM)(records) == pytest.approx([20, -5])
    assert results.higher(BUC, OIM, by=1)(records) == pytest.approx([19, -6])
    assert results.rises(BUC, OIM)(records) == pytest.approx([20, -5])  # beyond what training alone gives


def test_a_curve_declines_by_its_last_stages_and_not_by_its_luckiest():
    flat, falling = record(BUC, 0.4), record(BUC, 0.4, seed=1)
    for one, curve in ((flat, [0.2, 0.3, 0.5, 0.4, 0.4, 0.4, 0.4]), (falling, [0.2, 0.3, 0.5, 0.5, 0.4, 0.3, 0.2])):
        one.stages = [{"metrics": {"rank-1": value}} for value in curve]
    assert results.declines(BUC)([flat, falling]) == pytest.approx([0, 100 * (1.3 / 3 - 0.3)])


def test_a_curve_is_steadier_that_falls_less_after_its_best_where_both_go_on_for_long_enough():
    records = []
    for recipe, seed, curve in (
        (BUC, 0, [0.2, 0.5, 0.4, 0.3, 0.2, 0.9]),
        (DBC, 0, [0.1, 0.2, 0.5, 0.5, 0.4, 0.3]),
        (BUC, 1, [0.2, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (DBC, 1, [0.1, 0.2, 0.3, 0.5, 0.4, 0.3]),  # two stages left
        (BUC, 2, [0.2, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (DBC, 2, [0.5, 0.4, 0.3, 0.2, 0.2, 0.1]),  # the best before any merge
    ):
        run = record(recipe, 0.5, seed=seed)
        run.stages, run.selected = [{"metrics": {"rank-1": value}} for value in curve], curve.index(0.5)
        records.append(run)
    assert results.steadier(DBC, BUC)(records) == pytest.approx([20 - 10])


def with_clusters(run, singletons, silhouette=None):
    """The run with so many of 10 images alone in its second stage."""
    last = run.stages[-1]
    last["quality"] |= {"num_singletons": singletons, "largest_cluster": 10 - singletons}
    last["validity"] = {} if silhouette is None else {"silhouette": silhouette}
    return run


def test_clusters_are_compared_in_the_stages_after_a_merge_where_both_runs_have_the_measure():
    records = [
        with_clusters(record(DBC, 0.5), 2, 0.3),
        with_clusters(record(BUC, 0.5), 5, 0.1),
        with_clusters(record(DBC, 0.5, seed=1), 4),
        with_clusters(record(BUC, 0.5, seed=1), 3, 0.2),
    ]
    margins = {measure: results.better_clusters(DBC, BUC, measure)(records) for measure in GOOD_IN_CLUSTERS}
    assert margins["few singletons"] == pytest.approx([30, -10])
    assert margins["no large cluster"] == pytest.approx([-30, 10])
    assert margins["purity"] == [0, 0]
    assert margins["pair recall"] == [0, 0]
    assert margins["adjusted Rand index"] == [0, 0]
    assert margins["silhouette"] == pytest.approx([20])


def test_margins_of_several_recipes_are_joined():
    records = [record(BUC, 0.5, first=0.3), record(OIM, 0.6, first=0.5)]
    margins = results.joined(results.begins_higher(BUC), results.begins_higher(DBC), results.begins_higher(OIM))
    assert margins(records) == pytest.approx([20, 40])


def test_a_first_stage_is_compared_with_the_network_before_training():
    assert results.begins_higher(BUC)([record(BUC, 0.5, first=0.3), record(OIM, 0.5)]) == pytest.approx([20])


def test_a_decline_is_by_too_few_clusters_only_where_it_begins_below_the_number_of_people():
    def run(seed, *curve):
        made = record(BUC, 0.0, seed=seed)
        made.stages = [
            made.stages[0] | {"stage": k, "num_clusters": 10 - k, "metrics": {"rank-1": rank_1}}
            for k, rank_1 in enumerate(curve)
        ]
        made.selected = int(np.argmax(curve))
        return made

    early, late, none = run(0, 0.2, 0.6, 0.4, 0.3), run(1, 0.4, 0.5, 0.6, 0.1), run(2, 0.2, 0.3, 0.4, 0.5)
    best_at_last = run(3, 0.5, 0.5, 0.5, 0.1, 0.1, 0.6)  # its last stages are lower on average
    margins = results.declines_below(lambda record: 8, BUC)
    assert margins([early, late, none, best_at_last]) == [8 - 8, 8 - 7]


def test_of_several_others_those_never_run_do_not_count():
    records = [record(BUC, 0.5), record(OIM, 0.3)]
    assert results.highest(BUC, [OIM, BUC_UNREGULARIZED])(records) == pytest.approx([20])
    assert results.highest(BUC, [BUC_UNREGULARIZED])(records) == []


def test_the_verdicts_of_chance_are_those_of_a_coin_in_each_seed(results_folder, capsys):
    of_claims, rng, counts = [(3,), (3, 2), (2, 1, 1), (1,)], np.random.default_rng(0), Counter()
    for number, seeds in enumerate(of_claims):
        for _ in range(1000):
            columns = {str(k): rng.choice([-1.0, 1.0], size=count).tolist() for k, count in enumerate(seeds)}
            conclude(f"claim {number}", columns, exhibit="BUC Table 1", expected="", source="run")
            word = capsys.readouterr().out.partition(":")[0].lower()
            counts[word] += len(seeds) > 1 or seeds[0] > 1
    table = verdicts.beside_chance(paths.VERDICTS)
    for word, expected in table["by chance alone"].items():
        assert counts[word] / 1000 == pytest.approx(expected, abs=0.1)
    assert table["by chance alone"].sum() == table["found"].sum() == 3  # one claim rests on a single case


def test_a_rise_is_gradual_only_beyond_that_of_training_without_a_merge():
    rising, flat = [0.2, 0.3, 0.4, 0.5], [0.2, 0.2, 0.2, 0.2]
    margins = []
    assert results.gradual(BUC, OIM)([record(BUC, 0.5), record(OIM, 0.3)]) == []  # of two stages
    for alone_curve in (flat, rising):
        merged, alone = record(BUC, 0.5), record(OIM, 0.5)
        for one, curve in ((merged, rising), (alone, alone_curve)):
            one.stages, one.selected = [{"metrics": {"rank-1": value}} for value in curve], 3
        margins += results.gradual(BUC, OIM, at_least=0.8)([merged, alone])
    assert margins == pytest.approx([0.2, -0.8])


def test_precisions_and_weights_are_never_mixed(results_folder):
    plain, mixed = record(BUC, 0.5), record(BUC, 0.4, precision="bf16")
    pretrained = record(BUC, 0.6, weights="catalogue 1")
    write(mixed, plain, pretrained)

    def found(**settings):
        (one,) = results.load_or_run([BUC], dataset="synthetic", **settings)
        return one.best["rank-1"]

    assert found() == 0.6
    assert found(weights="none") == 0.5
    assert found(weights="none", precision="bf16") == 0.4
    table = results.ours([plain, mixed], {"BUC": BUC})
    assert {name for name, _ in table} == {
        "ours: synthetic · resnet18 from scratch 64×32",
        "ours: synthetic · resnet18 from scratch 64×32 bf16",
    }


def test_a_stored_record_has_the_weights_asked_for(results_folder):
    write(record(BUC, 0.5, weights="catalogue catalogue-resnet18-64x32.safetensors 6b1f22ac"))
    assert results.load_or_run([BUC], dataset="synthetic")
    for weights in ("imagenet", "none"):
        with pytest.raises(RecordError, match=r"no stored record of buc .*that is stored \(synthetic · resnet18 cat"):
            results.load_or_run([BUC], dataset="synthetic", weights=weights)


def test_two_recipes_of_one_name_are_not_drawn_as_one():
    runs = [record(BUC, 0.5), record(replace(BUC, temperature=0.2), 0.5, seed=1)]
    with pytest.raises(RecordError, match="called 'buc', but differ in temperature; run one of them under a name"):
        results.tidy(runs)
    results.tidy([runs[0], record(replace(BUC, temperature=0.2, name="warm"), 0.5, seed=1)])


def test_records_come_from_the_column_that_has_most_of_those_wanted(results_folder):
    few = record(BUC, 0.3, weights="catalogue 1")
    most = [record(r, 0.4, weights="catalogue 2") for r in (BUC, OIM)]
    write(*most, few)
    found = results.load_or_run([BUC, OIM], dataset="synthetic", weights="catalogue")
    assert [r.name for r in found] == [r.name for r in most]


def test_provenance_says_in_what_a_recipe_is_not_that_of_its_name():
    shorter = replace(BUC, merge_percent=0.1, frames_per_tracklet=2)
    own = replace(BUC_UNREGULARIZED, name="buc_unregularized_mine", temperature=0.2)
    recipes = [shorter, BUC, BUC.with_weight(0.1), own, replace(OIM, name="another", temperature=0.2)]
    table = results.provenance([record(recipe, 0.5) for recipe in recipes])
    assert table["recipe"].tolist() == [
        "buc, merge_percent=0.1, frames_per_tracklet=2",
        "buc",
        "buc_weight_0.1",
        "buc_unregularized_mine, temperature=0.2",
        "another",
    ]


def test_networks_that_began_from_other_weights_are_not_compared():
    ours, theirs = (
        "catalogue catalogue-resnet18-64x32.safetensors 6b1f22ac9b65896d",
        "catalogue own.safetensors c267eef4",
    )
    one, other = record(BUC, 0.5, weights=ours), record(OIM, 0.4, weights=theirs)
    assert list(results.columns([one])) == ["synthetic · resnet18 catalogue 64×32"]
    names = [f"synthetic · resnet18 catalogue 64×32, weights {digest}" for digest in ("6b1f22ac", "c267eef4")]
    assert list(results.columns([one, other])) == names
    assert results.tidy([one, other])["column"].unique().tolist() == names
    claim = results.Claim("BUC is above OIM", results.higher(BUC, OIM))
    assert claim.margins([one, other]) != []
    assert [claim.margins(members) for members in results.columns([one, other]).values()] == [[], []]


def test_images_that_were_encoded_anew_have_a_column_of_their_own():
    one, other = record(BUC, 0.5), record(BUC, 0.5)
    other.settings["images"] = "JPEG"
    assert [results.column(r).split(" · ")[0] for r in (one, other)] == ["synthetic", "synthetic, JPEG"]


def test_a_run_of_fewer_stages_leaves_the_later_ones_empty(results_folder):
    table = results.stages([record(BUC, 0.5)], "BUC Fig. 3b", at=[0, 1, 19])
    assert table.iloc[:, -2].tolist() == ["20.0", "50.0", ""]


def test_a_record_older_than_a_field_counts_by_its_default():
    old = record(BUC, 0.5)
    del old.settings["recipe"]["junk"], old.settings["recipe"]["criterion"]["absorbed"]
    assert results.higher(BUC, BUC)([old]) == [0]
    old.settings["recipe"]["criterion"]["distance"] = "squared"
    assert results.higher(BUC, BUC)([old]) == []


def test_the_highest_is_measured_against_the_best_of_the_others_in_each_seed():
    records = [
        record(r, v, seed=s)
        for s, three in enumerate([(0.5, 0.4, 0.3), (0.5, 0.1, 0.6)])
        for r, v in zip((BUC, BUC_UNREGULARIZED, OIM), three, strict=True)
    ]
    assert results.highest(BUC, [BUC_UNREGULARIZED, OIM])(records) == pytest.approx([10, -10])


def test_the_paper_and_ours_stand_in_columns_of_their_own(results_folder):
    records = [
        record(BUC, 0.5, seed=0),
        record(BUC, 0.4, seed=1),
        record(OIM, 0.3),
        record(BUC, 0.6, dataset="market1501"),
    ]
    table = results.compare(records, "BUC Table 1", METHODS)
    assert table.loc["BUC", ("paper: market1501", "rank-1")] == "61.9"
    assert table.loc["BUC", ("ours: synthetic · resnet18 from scratch 64×32", "rank-1")] == "45.0 ± 7.1 (2)"
    assert table.loc["BUC", ("ours: market1501 · resnet18 from scratch 64×32", "rank-1")] == "60.0 (1)"
    assert table.loc["SPGAN", ("ours: synthetic · resnet18 from scratch 64×32", "rank-1")] == ""
    assert table.loc["SPGAN", ("paper", "labels")] == "transfer"
    assert table.loc["OIM", ("paper: market1501", "rank-1")] == "38.0*"  # as its authors ran it
    assert len([c for c in table.columns if c[0].startswith("ours")]) == 4
    written = pd.read_csv(
        paths.TABLES / "buc_table_1.csv", header=[0, 1], index_col=0, keep_default_na=False, dtype=str
    )
    assert written.equals(table)


def test_two_long_claims_that_begin_alike_have_each_its_verdict(results_folder):
    claims = [f"{'Without regularizers and on the head of the other paper, ' * 2}{end}" for end in ("rank-1", "mAP")]
    for text in claims:
        results.conclude(text, {"a column": [1.0]}, exhibit="DBC Table II", expected="reproduced")
    assert sorted(results.scorecard(paths.VERDICTS)["claim"]) == sorted(claims)


def test_what_is_neither_stored_nor_run_is_no_source(results_folder):
    with pytest.raises(ValueError, match="source='stord'"):
        results.conclude("a claim", {}, exhibit="BUC Table 1", expected="reproduced", source="stord")
    with pytest.raises(ValueError, match="source='stord'"):
        results.dataset_counts(["mars"], source="stord")
    with pytest.raises(RecordError, match="elsewhere: not counted yet"):
        results.dataset_counts(["elsewhere"])


def test_nothing_exceeds_none():
    assert results.highest(BUC, [])([record(BUC, 0.5)]) == []


def test_of_unfinished_runs_those_on_the_dataset_are_read(results_folder, monkeypatch):
    folder = results_folder / "unfinished"
    monkeypatch.setattr(paths, "STORED_UNFINISHED", folder)
    records = [record(BUC, 0.5, dataset=name) for name in ("market1501", "mars")]
    for r in records:
        r.selected = None
        r.save()
    paths.RUNS.rename(folder)
    assert results.unfinished("mars") == records[1:]


def test_counts_that_were_taken_are_kept_and_those_of_what_is_not_here_are_the_stored(results_folder, monkeypatch):
    monkeypatch.setattr(paths, "STORED_DATASETS", results_folder / "stored")
    write_json(paths.STORED_DATASETS / "mars.json", {"train": {"identities": 625}})
    monkeypatch.setattr(results, "load_dataset", lambda name, root: f"the images of {name}")
    monkeypatch.setattr(results, "summarize", lambda split: {"counted": split})
    counted = {"counted": "the images of synthetic"}
    assert results.dataset_counts(["synthetic"], source="run") == {"synthetic": counted}
    assert json.loads((paths.DATASETS / "synthetic.json").read_text()) == counted

    def absent(name, root):
        raise DatasetError(f"{name} is not here")

    monkeypatch.setattr(results, "load_dataset", absent)
    with pytest.warns(UserWarning, match="mars is not here; shown are the stored counts"):
        assert results.dataset_counts(["mars"], source="run") == {"mars": {"train": {"identities": 625}}}
    with (
        pytest.warns(UserWarning, match="cifar10 is not here"),
        pytest.raises(RecordError, match="cifar10: not counted yet; cifar10 is not here"),
    ):
        results.dataset_counts(["cifar10"], source="run")


def test_a_record_has_the_labels_of_its_own_results_folder_and_no_others(results_folder, tmp_path):
    run = record(BUC, 0.5)
    paths.LABELS.mkdir(parents=True)
    np.savez(paths.LABELS / f"{run.name}.npz", pseudo_labels=[[2]])
    elsewhere = tmp_path / "elsewhere" / "runs" / f"{run.name}.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(run.save().read_bytes())
    assert run.pseudo_labels() == load_record(paths.RUNS / elsewhere.name).pseudo_labels() == 2
    with pytest.raises(RecordError, match=r"elsewhere/labels/.* are not there; load the record from the results"):
        load_record(elsewhere).pseudo_labels()


def test_provenance_has_a_row_for_a_run_and_one_for_a_machine_that_was_measured():
    table = results.provenance([results.stored([BUC])[0], results.load_or_measure()[0]])
    assert len(table) == 2
    assert table["seed"].tolist()[1] == "" == table["cores"].tolist()[0]


def test_runs_on_different_images_are_not_compared(results_folder):
    one, other = (record(recipe, 0.5, dataset="mine") for recipe in (BUC, DBC))
    assert list(results.columns([one, other]).values()) == [[one, other]]
    other.settings["fingerprint"] = "of other images"
    with pytest.raises(RecordError, match="had different images and must not be compared"):
        results.columns([one, other])
    for run in (one, other):
        run.settings["dataset"] = "synthetic"  # a processor may round some of its pixels otherwise
    assert list(results.columns([one, other]).values()) == [[one, other]]


def test_records_and_recipes_may_come_from_a_generator(results_folder):
    runs = [record(BUC, 0.5), record(DBC, 0.4)]
    assert list(results.columns(iter(runs)).values()) == [runs]
    with pytest.raises(RecordError, match="no stored record of buc"):
        results.load_or_run(iter([BUC]), dataset="synthetic", seeds=iter([0]))


def test_a_package_without_its_repository_keeps_its_files_in_the_working_directory(tmp_path):
    shutil.copytree(paths.ROOT / "reprolib", tmp_path / "site" / "reprolib")
    ask = "from reprolib import batch, paths, state, tables; print(paths.RESULTS, paths.CACHE, state.SOURCE, sep='\\n')"
    select, published = "batch.select([])", "tables.published('BUC Table 1')"
    said = []
    for then in ("", select, published):
        command = [sys.executable, "-c", f"{ask}; {then}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPROLIB_")}
        environment |= {"PYTHONPATH": str(tmp_path / "site")}
        said.append(subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True))
    assert said[0].stdout.split() == [str(tmp_path / "results"), str(tmp_path / "data" / "cache"), state.SOURCE]
    for failed in said[1:]:
        assert failed.stderr.strip().endswith(
            "they are in the repository; clone it, and there: pip install --editable ."
        )


def test_a_commit_says_whether_anything_has_changed_since(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *arguments], cwd=tmp_path, check=True)

    monkeypatch.setattr(paths, "SOURCE", tmp_path)
    git("init", "-q")
    for name in ("code", "page"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("as it was")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    (tmp_path / "page" / "file").write_text("changed")
    assert re.fullmatch(r"[0-9a-f]{12}", commit("code"))
    (tmp_path / "code" / "file").write_text("changed")
    assert re.fullmatch(r"[0-9a-f]{12}\+changes", commit("code"))
    monkeypatch.setattr(paths, "SOURCE", tmp_path / "code")  # inside a repository that is not its own
    monkeypatch.setenv("REPROLIB_COMMIT", "said")
    assert commit("file") == "said"


def test_every_version_that_may_move_a_figure_is_named():
    installed = versions()
    assert installed.keys() == {"python", "torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn", "cuda"}
    assert installed["torchvision"] == torchvision.__version__.split("+")[0]


def test_a_verdict_that_no_longer_follows_from_the_stored_numbers_is_an_error(results_folder, capsys):
    claim = results.Claim("BUC is above OIM", results.higher(BUC, OIM))
    good = [record(BUC, 0.5), record(OIM, 0.3)]
    results.verdict(claim, good, exhibit="BUC Table 1", expected="reproduced")
    assert "REPRODUCED: BUC is above OIM" in capsys.readouterr().out
    bad = [record(BUC, 0.2), record(OIM, 0.3)]
    with pytest.raises(ValueError, match="the notebook says 'reproduced'"):
        results.verdict(claim, bad, exhibit="BUC Table 1", expected="reproduced")
    results.verdict(claim, bad, exhibit="BUC Table 1", expected="reproduced", source="run")
    assert results.scorecard(paths.VERDICTS)["verdict"].tolist() == ["not reproduced"]


def test_over_several_datasets_a_claim_that_holds_on_one_alone_is_partly_reproduced(results_folder, capsys):
    claim = results.Claim("BUC is above OIM", results.higher(BUC, OIM))
    records = [record(BUC, 0.5), record(OIM, 0.3), record(BUC, 0.2, dataset="mars"), record(OIM, 0.3, dataset="mars")]
    results.verdict(claim, records, exhibit="BUC Table 1", expected="partly")
    assert "not reproduced on mars" in capsys.readouterr().out


def test_the_scorecard_counts_the_seeds_of_each_image_size(results_folder):
    claim = results.Claim("BUC is above OIM", results.higher(BUC, OIM))
    records = [record(recipe, rank_1, seed=seed) for recipe, rank_1 in ((BUC, 0.5), (OIM, 0.3)) for seed in (0, 1)]
    records += [record(recipe, rank_1, image_size=[256, 128]) for recipe, rank_1 in ((BUC, 0.5), (OIM, 0.3))]
    records += [record(recipe, rank_1, dataset="mars") for recipe, rank_1 in ((BUC, 0.5), (OIM, 0.3))]
    results.verdict(claim, records, exhibit="BUC Table 1", expected="reproduced")
    assert results.scorecard(paths.VERDICTS)["tried on"].tolist() == ["synthetic (2, 1); mars (1)"]


def test_a_missing_record_is_an_error_that_names_the_command(results_folder):
    with pytest.raises(RecordError, match="reprolib run --recipe buc --dataset synthetic --seed 7"):
        results.load_or_run([BUC], dataset="synthetic", seeds=[7])
    with pytest.raises(ValueError, match="source"):
        results.load_or_run([BUC], dataset="synthetic", source="maybe")


def test_a_difference_is_beyond_its_deviation_over_the_seeds():
    records = [record(r, v, seed=s) for r, vs in ((OIM, (0.2, 0.3)), (BUC, (0.5, 0.4))) for s, v in enumerate(vs)]
    deviation = 100 * 0.2 / 2**0.5  # of leads of 30 and 10 points
    assert results.beyond_spread(BUC, OIM)(records) == pytest.approx([20 - deviation])
    assert results.beyond_spread(BUC, OIM)(records[::2]) == []


def test_a_lead_is_compared_with_that_of_a_control_for_the_seeds_that_all_four_have():
    of_seeds = {BUC: (0.5, 0.4, 0.9), OIM: (0.2, 0.3, 0.1), DBC: (0.3, 0.2, 0.5), BUC_UNREGULARIZED: (0.2, 0.2)}
    records = [record(recipe, rank_1, seed=s) for recipe, all_ in of_seeds.items() for s, rank_1 in enumerate(all_)]
    pair, control = (BUC, OIM), (DBC, BUC_UNREGULARIZED)
    assert results.beyond_control(pair, control)(records) == pytest.approx([30 - 10, 10 - 0])
    from_the_start = partial(results.ahead_from, 0)
    assert len(results.beyond_control(pair, control, from_the_start)(records)) == 2


def test_of_columns_in_which_nothing_can_be_compared_there_are_no_records(results_folder):
    for r in (record(OIM, 0.2, dataset="market1501"), record(BUC, 0.4, dataset="market1501"), record(BUC, 0.5)):
        r.save()
    paths.RUNS.rename(paths.STORED_RUNS)
    assert len(results.stored([OIM, BUC])) == 3
    assert {r.settings["dataset"] for r in results.stored([OIM, BUC], at_least=2)} == {"market1501"}
    assert results.stored([OIM, BUC], other_than="market1501", at_least=2) == []


def test_a_stored_record_is_found_by_its_whole_recipe(results_folder):
    write(record(BUC, 0.5))
    assert results.load_or_run([BUC], dataset="synthetic", weights="none")[0].best["rank-1"] == 0.5
    with pytest.raises(RecordError):
        results.load_or_run([replace(BUC, temperature=0.2)], dataset="synthetic", weights="none")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 0, "settings": {}}', "\x00"])
def test_a_file_that_is_no_record_is_an_error_that_names_it(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(RecordError, match=r"broken\.json"):
        load_record(file)


def test_an_unfinished_run_has_no_best_stage():
    unfinished = record(BUC, 0.5)
    unfinished.selected = None
    with pytest.raises(RecordError, match="not finished"):
        _ = unfinished.best


def test_a_record_is_readable_text_with_a_line_a_stage(results_folder):
    lines = record(BUC, 0.5).save().read_text().splitlines()
    assert len([line for line in lines if '"num_clusters"' in line]) == 2
    assert json.loads("\n".join(lines))["selected"] == 1


def test_an_unknown_exhibit_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="BUC Table 1"):
        published("BUC Table 9")


def test_runs_on_a_part_of_the_samples_stand_apart_from_whole_ones(results_folder):
    few = record(BUC, 0.3, samples=5000)
    assert results.column(few) == "synthetic, 5,000 samples · resnet18 from scratch 64×32"
    write(few)
    with pytest.raises(RecordError):
        results.load_or_run([BUC], dataset="synthetic", weights="none")


def test_a_stored_run_is_found_by_its_image_size(results_folder):
    write(record(BUC, 0.3), record(BUC, 0.6, image_size=[128, 64]))
    (found,) = results.load_or_run([BUC], dataset="synthetic", weights="none", image_size=(128, 64))
    assert found.best["rank-1"] == 0.6


def test_close_is_by_how_far_apart_and_earlier_by_how_many_stages():
    assert results.close(BUC, OIM, within=2)([record(BUC, 0.3), record(OIM, 0.5)]) == pytest.approx([-18])
    early, late = record(BUC, 0.5), record(OIM, 0.5)
    late.stages.append(late.stages[-1])
    late.selected = 2
    assert results.earlier(BUC, OIM)([early, late]) == [1]
    early.selected = 0  # merging never helped
    assert results.earlier(BUC, OIM)([early, late]) == []


def test_verdicts_from_before_are_not_among_those_of_now(results_folder):
    claim = results.Claim("BUC is above OIM", results.higher(BUC, OIM))
    results.verdict(claim, [record(BUC, 0.5), record(OIM, 0.3)], exhibit="BUC Table 1", expected="reproduced")
    assert len(results.scorecard(paths.VERDICTS)) == 1
    assert results.scorecard(paths.VERDICTS, since=time.time() + 9).empty


def test_provenance_names_the_stage_of_how_many_and_the_minutes():
    row = results.provenance([record(BUC, 0.5)]).iloc[0]
    assert (row["stage kept"], row["stages"], row["kept by"]) == ("1", "0–1", "test")
    assert row["minutes"] == "1.0"


def test_provenance_has_one_row_for_the_seeds_of_a_recipe_and_one_for_each_file_of_weights():
    ours, theirs = (
        "catalogue catalogue-resnet18-64x32.safetensors " + digest for digest in ("6b1f22ac9b", "c267eef414")
    )
    runs = [record(BUC, 0.5, weights=ours), record(BUC, 0.4, seed=1, weights=ours), record(BUC, 0.5, weights=theirs)]
    table = results.provenance(runs)
    assert table["seed"].tolist() == ["0, 1", "0"]
    assert [text.split()[-1] for text in table["weights"]] == ["6b1f22ac", "c267eef4"]
