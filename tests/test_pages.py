"""The numbers that README.md and the pages of docs print are those of the stored records."""

import re
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest

from benchmarks import gpu
from reprolib import BUC, DBC, DBC_RELEASED, OIM, audit, paths, results, timings
from reprolib.recipe import BUC_UNREGULARIZED, DBC_ONE_LAYER, DBC_UNREGULARIZED, SUPERVISED
from reprolib.tables import published
from reprolib.timings import load_benchmark

SYNTHETIC = "synthetic · resnet18 catalogue 64×32"
FEW = "synthetic, 24 identities · resnet18 catalogue 64×32"
OTHER = f"{FEW}, weights 28189806"  # pretrained on another kind of machine
VIDEO = "synthetic-video, 24 identities · resnet18 catalogue 64×32"
FEW_FRAMES = {"frames_per_tracklet": 2, "frames_at_most": 4}
HUNDRED, WHOLE = (f"market1501{part} · mobilenet_v2 ImageNet 128×64" for part in (", 100 identities", ""))
LARGE = "market1501 · mobilenet_v2 ImageNet 256×128 bf16"


def page(name):
    return " ".join((paths.ROOT / name).read_text(encoding="utf-8").split())


def kept(recipe, column):
    """Percent rank-1 of the stage kept, the mean over the seeds."""
    return 100 * mean(r.best["rank-1"] for r in records(recipe, column))


def first(recipe, column):
    return 100 * mean(r.curve("rank-1")[0] for r in records(recipe, column))


def named(names, column):
    """Where runs began from several files of weights, those that the order of the images was tested with."""
    return column if column in names else f"{column}, weights 6b1f22ac"


def records(recipe, column):
    found = results.columns(results.stored([recipe]))
    return found[named(found, column)]


def price(base, changed, column, metric="rank-1"):
    """As the audit's table has it: mean, deviation, seeds in which it went up."""
    found = audit.summary(audit.prices(results.stored([base, changed]), base, {"": changed}, metric)).loc[""]
    return found[named(found, column)].replace("-", "−")


@pytest.mark.parametrize(
    ("recipe", "other", "word", "column"),
    [
        (BUC, OIM, "over", HUNDRED),
        (BUC, OIM, "over", WHOLE),
        (BUC, OIM, "over", SYNTHETIC),
        (BUC, BUC_UNREGULARIZED, "over", HUNDRED),
        (BUC, BUC_UNREGULARIZED, "over", WHOLE),
        (BUC, BUC_UNREGULARIZED, "under", SYNTHETIC),
        (DBC, BUC, "under", HUNDRED),
        (DBC, BUC, "under", WHOLE),
        (DBC, BUC, "under", SYNTHETIC),
        (DBC, DBC_UNREGULARIZED, "under", HUNDRED),
        (DBC, DBC_UNREGULARIZED, "under", WHOLE),
        (DBC, DBC_UNREGULARIZED, "under", SYNTHETIC),
    ],
)
def test_the_readme_compares_what_the_records_say(recipe, other, word, column):
    assert f"{kept(recipe, column):.1f} {word} {kept(other, column):.1f}" in page("README.md")


def test_the_readme_has_the_three_distances_between_clusters():
    methods = [BUC, BUC.with_linkage("centroid"), BUC.with_linkage("maximum")]
    columns = [", ".join(f"{kept(recipe, column):.1f}" for recipe in methods) for column in (HUNDRED, SYNTHETIC)]
    assert f"| {' | '.join(columns)} |" in page("README.md")


def test_the_page_on_the_gpu_has_what_was_measured():
    (file,) = (paths.STORED_BENCH / "training").glob("*.json")
    for _, row in gpu.throughput(load_benchmark(file).rows).iterrows():
        figures = row[["batch", "ours, img/s", "roof, img/s", "plain loop, img/s", "of the roof", "× plain"]]
        assert f"| {row['piece']} | {' | '.join(map(str, figures))} |" in page("docs/gpu.md")
        if row["piece"] == "training":
            assert row["of the roof"] in page("README.md")


def test_the_page_on_the_gpu_has_the_runs_on_all_of_market1501():
    buc, dbc = records(BUC, LARGE) + records(DBC, LARGE)
    assert {run.provenance["device"] for run in (buc, dbc)} == {"NVIDIA H100 80GB HBM3"}
    seconds = " and ".join(f"{run.provenance['seconds']:.0f}" for run in (buc, dbc))
    assert f"{seconds} s for the whole schedule" in page("docs/gpu.md")
    rank1, mean_ap = (" and ".join(f"{100 * run.best[m]:.1f}" for run in (buc, dbc)) for m in ("rank-1", "mAP"))
    assert f"Rank-1 {rank1}, mAP {mean_ap} at the best stage" in page("docs/gpu.md")
    for part in ("evaluate", "extract"):
        spans = [[s["seconds"][part] for s in run.stages[2:]] for run in (buc, dbc)]
        cells = " | ".join(f"{min(span):.1f} to {max(span):.1f}" for span in spans)
        assert f"| {part} | {cells} |" in page("docs/gpu.md")


@pytest.mark.parametrize("column", [HUNDRED, WHOLE, SYNTHETIC])
def test_the_readme_has_what_merging_adds(column):
    assert f"{first(BUC, column):.1f} → {kept(BUC, column):.1f}" in page("README.md")


def test_the_readme_has_the_last_stage():
    def last(recipe, column):
        return 100 * mean(r.curve("rank-1")[-1] for r in records(recipe, column))

    few, synthetic, whole = (
        [f"{last(recipe, column):.1f}" for recipe in (BUC, OIM)] for column in (HUNDRED, SYNTHETIC, WHOLE)
    )
    text = page("README.md")
    assert f"100 identities ({' over '.join(few)}) and on synthetic people ({' over '.join(synthetic)})" in text
    assert f"not on all of Market-1501 ({' and '.join(whole)})" in text


def test_the_pages_say_that_bucs_regularizer_acts_late():
    def leads(column):
        runs = zip(records(BUC, column), records(BUC_UNREGULARIZED, column), strict=True)
        return [100 * np.subtract(*(run.curve("rank-1") for run in pair)) for pair in runs]

    (whole,) = leads(WHOLE)
    span = f"by {-whole[:12].max():.1f} to {-whole[:12].min():.1f} points"
    assert whole[:12].max() < 0 < whole[12:].min()
    above = f"and above it from the twelfth on, by {whole[12:].min():.1f} to {whole[12:].max():.1f}"
    before = f"{-whole[0]:.1f} of the lag is there before any merge"
    assert f"up to the eleventh merge, {span}, {above}. ({before}" in page("README.md")
    assert f"at every stage, {span}, and on 100 identities" in page("docs/results.md")
    assert f"{np.abs([lead[:12] for lead in leads(HUNDRED)]).max():.1f}" == "0.7"
    assert "the two are level (within 0.7)" in page("docs/results.md")
    assert "they are level up to the eleventh, within 0.7" in page("README.md")


def test_the_pages_have_what_becomes_of_buc_without_its_regularizer():
    (plain,), (buc,) = records(BUC_UNREGULARIZED, WHOLE), records(BUC, WHOLE)
    largest = plain.stages[-1]["quality"]["largest_cluster"] / plain.stages[0]["num_clusters"]
    ends = [f"{100 * run.curve('rank-1')[-1]:.1f}" for run in (plain, buc)]
    text = page("docs/results.md")
    gain = kept(BUC, WHOLE) - kept(BUC_UNREGULARIZED, WHOLE)
    assert f"(one seed) it adds {gain:.1f} points of rank-1 at the stage kept" in text
    assert f"grows to {largest:.0%} of the images and rank-1 falls to {ends[0]}, where it ends at {ends[1]}" in text
    lost = kept(BUC_UNREGULARIZED, WHOLE) - float(ends[0])
    assert f"without its regularizer by {lost:.1f} at 128×64" in page("docs/audit.md")
    assert f"and {lost:.0f} points, respectively" in page("README.md")


def cell(recipe, column):
    """As the table of all methods has it: rank-1, its deviation over the seeds, and mAP by both definitions."""
    found = results.columns(results.stored([recipe]))
    if named(found, column) not in found:
        return "–"
    metrics = ("rank-1", "mAP", "mAP_step")
    rank1, *precisions = ([100 * r.best[m] for r in found[named(found, column)]] for m in metrics)
    spread = f" ± {stdev(rank1):.1f}" if len(rank1) > 1 else ""
    return f"{mean(rank1):.1f}{spread} / {' / '.join(f'{mean(values):.1f}' for values in precisions)}"


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        ("OIM", OIM),
        ("BUC without regularizer", BUC_UNREGULARIZED),
        ("BUC", BUC),
        ("DBC without regularizer", DBC_UNREGULARIZED),
        ("DBC", DBC),
        ("DBC with BUC's head", DBC_ONE_LAYER),
        ("DBC, nothing between its head's layers", audit.plainly_headed(DBC)),
        ("DBC, released program", DBC_RELEASED),
    ],
)
def test_the_results_have_every_method_beside_the_papers(method, recipe):
    rows = pd.concat([published("BUC Table 1"), published("DBC Table II")]).query("dataset == 'market1501'")
    own = rows[rows["method"] == method].drop_duplicates("metric").set_index("metric")["value"]  # BUC's, of BUC's paper
    paper = f"{own['rank-1']} / {own['mAP']}" if len(own) else ""
    cells = [cell(recipe, column) for column in (WHOLE, LARGE, HUNDRED, SYNTHETIC)]
    assert f"| {method} | {paper} | {' | '.join(cells)} |".replace("|  |", "| |") in page("docs/results.md")


def test_the_results_have_what_every_label_gives():
    assert f"| trained with every label | | | | | {cell(SUPERVISED, SYNTHETIC)} |" in page("docs/results.md")


def test_the_results_have_what_merging_adds_on_large_images():
    assert f"{first(BUC, LARGE):.1f} → {kept(BUC, LARGE):.1f}" in page("docs/results.md")


def test_the_readme_counts_the_papers_claims():
    card = results.scorecard(paths.STORED_VERDICTS)
    counts = card[~card["ours"]]["verdict"].value_counts()
    assert f"Of the papers' {counts.sum()} claims that were tried, {counts['reproduced']} are" in page("README.md")
    assert f"tried), {counts['partly']} partly (" in page("README.md")
    assert f"another), {counts['not reproduced']} not (" in page("README.md")
    assert f"seed), and {counts['inconclusive']} are inconclusive" in page("README.md")
    table = results.beside_chance(paths.STORED_VERDICTS)
    found, chance = (table[name].round().astype(int) for name in ("found", "by chance alone"))
    order = ["reproduced", "not reproduced", "partly", "inconclusive"]
    (a, b, c, d), (e, f, g, h) = chance[order], found[order]
    found_here = f"about {a} of the {found.sum()} claims with several cases would be reproduced and {b} not; we find"
    assert f"{found_here} {e} and {f}" in page("README.md")
    text = page("docs/results.md")
    assert f"of the {found.sum()} claims with several cases about {a} would be reproduced, {b} not, {c} partly" in text
    assert f"and {d} inconclusive (rounded); found are {e}, {f}, {g} and {h}." in text


def test_the_results_have_what_tracklets_give():
    recipes = (replace(r, **FEW_FRAMES) for r in (OIM, BUC, DBC, DBC_RELEASED))
    oim, buc, dbc, released = (f"{kept(recipe, VIDEO):.1f}" for recipe in recipes)
    assert oim == buc
    assert f"BUC and OIM both have {buc}, DBC {dbc}, its released program {released}" in page("docs/results.md")


def test_the_audit_has_the_table_of_the_order_test():
    for start in (DBC_RELEASED, audit.from_zeros(DBC_RELEASED), audit.repaired(DBC_RELEASED)):
        cells = []
        for column in (FEW, OTHER):
            for recipe in (start, audit.in_order(start)):
                values = [100 * r.best["rank-1"] for r in records(recipe, column)]
                cells.append(f"{mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
        assert f"| {' | '.join(cells)} |" in page("docs/audit.md")


@pytest.mark.parametrize(
    ("base", "changed", "column"),
    [
        (DBC_RELEASED, audit.in_order(DBC_RELEASED), FEW),
        (DBC, DBC_RELEASED, SYNTHETIC),
        (DBC, DBC_RELEASED, FEW),
        (DBC, DBC_RELEASED, HUNDRED),
        (DBC, DBC_RELEASED, WHOLE),
        (replace(DBC, **FEW_FRAMES), replace(DBC_RELEASED, **FEW_FRAMES), VIDEO),
        (DBC, DBC_UNREGULARIZED, SYNTHETIC),
        (DBC, DBC_ONE_LAYER, SYNTHETIC),
        (DBC, DBC_ONE_LAYER, HUNDRED),
    ],
)
def test_the_audit_has_the_price_of_a_difference(base, changed, column):
    points = re.sub(r" \(.*", "", price(base, changed, column)).removeprefix("+")
    assert points in page("docs/audit.md")


def test_the_pages_have_what_sorting_the_images_is_worth_from_each_start_of_the_table():
    for start in (DBC_RELEASED, audit.from_zeros(DBC_RELEASED), audit.repaired(DBC_RELEASED)):
        points = re.sub(r" \(.*", "", price(start, audit.in_order(start), FEW)).removeprefix("+")
        for name in ("docs/audit.md", "README.md") if start != audit.repaired(DBC_RELEASED) else ("docs/audit.md",):
            assert f" {points} " in page(name)
        assert f"{points.removeprefix('−')} {'behind' if '−' in points else ''}".strip() in page("docs/audit.md")


def test_the_audit_has_the_price_of_each_difference_alone():
    text = page("docs/audit.md")
    for name, recipe in audit.program_side().items():
        assert f"| {name} | {price(DBC_RELEASED, recipe, FEW)} |" in text
    dispersion = price(DBC, audit.paper_side()["dispersion: Σ / n²"], FEW)
    assert f"| the paper's method, but dispersion: Σ / n² | {dispersion} |" in text
    repair = price(DBC_RELEASED, audit.repaired(DBC_RELEASED), FEW)
    assert f"| start of the table: means of the new clusters, the repair | {repair} |" in text
    assert f"{repair.split(' (')[0].removeprefix('−')} points below the stale means" in text


def test_the_audit_has_what_the_silhouette_and_the_last_stage_lose_in_the_same_runs():
    table = audit.selection_losses(results.stored())
    lost = table[(table["column"] == HUNDRED) & (table["rule"] == "silhouette")]
    chosen, last = (f"{lost[name].mean():.1f} ± {lost[name].std():.1f}" for name in ("lost", "last"))
    found = f"it loses {chosen} and up to {lost['lost'].max():.1f}, where the last stage loses {last} in the same runs"
    assert found in page("docs/audit.md")


def test_the_audit_has_how_large_clusters_grow_by_each_update():
    sizes, rank1 = {}, {}
    for recipe in (DBC, DBC_UNREGULARIZED, audit.exactly_updated(DBC)):
        runs = sorted(records(recipe, HUNDRED), key=lambda run: run.settings["seed"])
        sizes[recipe] = " and ".join(str(run.stages[-1]["quality"]["largest_cluster"]) for run in runs)
        rank1[recipe] = " and ".join(f"{100 * run.best['rank-1']:.1f}" for run in runs)
    eq7, none, exact = sizes
    text = page("docs/audit.md")
    assert f"the last stage has {sizes[eq7]} images (two seeds); without any regularizer it has {sizes[none]}" in text
    assert f"and with Eq. 3 throughout {sizes[exact]}" in text
    assert f"it is {rank1[eq7]} with Eq. 7, {rank1[exact]} with Eq. 3" in text


def test_the_audit_has_what_the_first_drop_loses():
    merging = [record for record in results.stored() if record.settings["recipe"]["criterion"]]
    table = audit.selection_losses(merging)
    lost = table[(table["column"] == HUNDRED) & (table["rule"] == "first drop")]["lost"]
    assert f"loses {lost.mean():.1f} ± {lost.std():.1f} points and up to {lost.max():.1f} on" in page("docs/audit.md")


def test_the_audit_has_what_junk_in_the_gallery_costs():
    rank1, mean_ap = (
        price(audit.FIRST_STAGE, audit.with_junk(audit.FIRST_STAGE), HUNDRED, metric).split(" (")[0]
        for metric in ("rank-1", "mAP")
    )
    assert f"{rank1.removeprefix('−')} points of rank-1 and {mean_ap.removeprefix('−')} of mAP less" in page(
        "docs/audit.md"
    )


def test_the_audit_has_the_price_on_real_people_of_each_difference_that_was_run():
    measured = {}
    for name, recipe in audit.paper_side().items():
        if any(r.settings["dataset"] == "market1501" for r in results.stored([recipe])):
            measured[name] = price(DBC, recipe, HUNDRED).split(" (")[0]
    assert measured
    between = "embedding head: 2 layers, with nothing between them (not said; the program has 1 layer)"
    measured[between] = price(DBC, audit.plainly_headed(DBC), HUNDRED).split(" (")[0]
    for name, points in measured.items():
        assert f"| {name} | {points} |" in page("docs/audit.md")


def test_the_results_have_what_nothing_between_the_heads_layers_is_worth():
    runs = list(zip(records(audit.plainly_headed(DBC), HUNDRED), records(DBC, HUNDRED), strict=True))
    first = " and ".join(f"{100 * (plain.curve('rank-1')[0] - own.curve('rank-1')[0]):.1f}" for plain, own in runs)
    at_best = " and ".join(f"{100 * (plain.best['rank-1'] - own.best['rank-1']):.1f}" for plain, own in runs)
    assert f"gains {first} points before any merge, and {at_best} at the stage kept" in page("docs/results.md")


@pytest.mark.parametrize("recipe", [audit.BUC_STALE, BUC])
def test_the_audit_has_buc_from_either_table_on_real_people(recipe):
    shuffled, in_order = kept(recipe, HUNDRED), kept(audit.in_order(recipe), HUNDRED)
    assert f"| {shuffled:.1f} | {in_order:.1f} |" in page("docs/audit.md")


def test_the_pages_have_what_another_pretraining_gives():
    changed = {
        "zeros": audit.from_zeros(DBC_RELEASED),
        "the repair": audit.repaired(DBC_RELEASED),
        "the paper's head": audit.program_side()["embedding head: 2 layers to 1024 (inner not said)"],
    }
    for words, recipe in changed.items():
        assert f"{words} {price(DBC_RELEASED, recipe, OTHER)}" in page("docs/audit.md")
    stale, zeros, repaired = (
        price(start, audit.in_order(start), OTHER).split(" (")[0].removeprefix("+")
        for start in (DBC_RELEASED, changed["zeros"], changed["the repair"])
    )
    behind = f"{zeros.removeprefix('−')} behind from zeros, {repaired.removeprefix('−')} from the right means"
    assert f"{stale} ahead from a stale table, in every seed, and {behind}" in page("docs/audit.md")
    assert f"it adds {stale}, {zeros} and {repaired}" in page("docs/audit.md")


def test_the_pages_have_by_how_much_sorted_images_lead_on_real_people():
    recipes = audit.in_order(audit.BUC_STALE), audit.BUC_STALE
    leads = results.ahead_from(1, *recipes)(results.stored(recipes))
    text = page("docs/audit.md")
    assert text.count(f"by {' and '.join(f'{lead:.1f}' for lead in leads)} points") == 2  # in short, and at length
    control = records(BUC, HUNDRED) + records(audit.in_order(BUC), HUNDRED)
    behind, ahead = results.ahead_from(1, audit.in_order(BUC), BUC)(control)
    assert f"it is {-behind:.1f} behind and {ahead:.1f} ahead" in text
    assert f"they are {-behind:.1f} behind in one seed and {ahead:.1f} ahead in the other" in text


def test_the_pages_have_what_the_programs_way_of_merging_takes():
    table = timings.beside_programs(results.load_beside_programs())
    runs = table[(table["on"] == "AMD EPYC, 2 threads") & table["step"].str.startswith("a run")].set_index("recipe")
    ours, programs = (
        {name.removesuffix("_released"): s / 60 for name, s in runs[c].items()} for c in runs if ", s" in c
    )
    readme, gpu_page = page("README.md"), page("docs/gpu.md")
    assert f"{ours['buc']:.1f} minutes (`buc_released`) and {ours['dbc']:.1f} (`dbc_released`)" in readme
    assert f"way about {programs['buc']:.0f} minutes and {programs['dbc'] / 60:.1f} hours" in readme
    assert f"{programs['buc']:.0f} minutes (BUC's) and {programs['dbc'] / 60:.1f} hours (DBC's)" in gpu_page
    assert f"ours are estimated to take {ours['buc']:.1f} and {ours['dbc']:.1f} minutes" in gpu_page
