"""Algorithm 1 from end to end on a dataset that trains in a second."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conftest import make_split
from PIL import Image

import reprolib
from reprolib import BUC, BUC_RELEASED, DBC, DBC_RELEASED, OIM, algorithm, paths, pipeline, plan
from reprolib.assessment import select_stage
from reprolib.audit import repaired
from reprolib.datasets import Split
from reprolib.plan import make_plan
from reprolib.recipe import BUC_UNREGULARIZED
from reprolib.record import RecordError, load_record
from reprolib.state import StateError

pytestmark = pytest.mark.usefixtures("results_folder", "tiny_network")
QUICK = {"merge_percent": 0.25, "first_stage_epochs": 2, "embedding_dim": 32}
NETWORK = {"backbone": "resnet18", "weights": "none", "image_size": (32, 16), "device": "cpu"}


def run(recipe, split, **settings):
    return reprolib.run(replace(recipe, **QUICK), split, **(NETWORK | settings))


def figures(record):
    """All that must be equal from run to run: everything but the clock."""
    stages = [{k: v for k, v in stage.items() if k != "seconds"} for stage in record.stages]
    return {"untrained": record.untrained, "stages": stages, "selected": record.selected}


@pytest.mark.parametrize("recipe", [BUC, DBC, BUC_RELEASED, DBC_RELEASED, repaired(DBC_RELEASED)], ids=lambda r: r.name)
def test_every_recipe_merges_m_clusters_a_stage_and_evaluates_each(recipe, tiny_split):
    record = run(recipe, tiny_split)
    assert [s["num_clusters"] for s in record.stages] == [48, 36, 24]
    for stage in record.stages:
        assert 0 <= stage["metrics"]["rank-1"] <= stage["metrics"]["rank-5"] <= 1
        assert stage["metrics"]["num_valid_queries"] == 48
        assert len(stage["losses"]) == (2 if stage["stage"] else QUICK["first_stage_epochs"])
        assert stage["quality"]["num_clusters"] == stage["num_clusters"]
    assert record.best["rank-1"] == max(record.curve("rank-1"))


def test_oim_never_merges(tiny_split):
    assert {s["num_clusters"] for s in run(OIM, tiny_split).stages} == {48}


def test_the_same_seed_gives_the_same_record_bit_for_bit_and_another_seed_another(tiny_split):
    first = run(BUC, tiny_split)
    assert figures(run(BUC, tiny_split, fresh=True)) == figures(first)
    assert figures(run(BUC, tiny_split, seed=1)) != figures(first)


@pytest.mark.parametrize("recipe", [BUC, DBC_RELEASED], ids=lambda r: r.name)
def test_a_run_cut_off_after_any_stage_goes_on_to_the_same_record(recipe, tiny_split, monkeypatch):
    whole = run(recipe, tiny_split)
    for stage in range(len(whole.stages)):
        (paths.RUNS / f"{whole.name}.json").unlink(missing_ok=True)
        for folder in paths.STATE.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        with monkeypatch.context() as patch:
            original = algorithm.Algorithm._stage

            def cut(self, number, original=original, last=stage):
                if number > last:
                    raise KeyboardInterrupt
                return original(self, number)

            patch.setattr(algorithm.Algorithm, "_stage", cut)
            if stage < len(whole.stages) - 1:
                with pytest.raises(KeyboardInterrupt):
                    run(recipe, tiny_split)
        assert figures(run(recipe, tiny_split)) == figures(whole)


def test_recipes_that_differ_only_after_the_first_stage_train_it_once(tiny_split, monkeypatch):
    trained = []
    original = algorithm.Algorithm._train
    monkeypatch.setattr(algorithm.Algorithm, "_train", lambda self, *a: trained.append(a[0]) or original(self, *a))
    alone = run(OIM, tiny_split)
    shared = run(BUC, tiny_split)
    assert trained.count(0) == 1
    assert figures(alone)["stages"][0] == figures(shared)["stages"][0]
    assert figures(run(BUC, tiny_split, fresh=True)) == figures(shared)


def test_a_first_stage_is_shared_whatever_it_is_ranked_on_and_ranked_anew(tiny_split, monkeypatch):
    trained = []
    original = algorithm.Algorithm._train
    monkeypatch.setattr(algorithm.Algorithm, "_train", lambda self, *a: trained.append(a[0]) or original(self, *a))
    alone = run(OIM, tiny_split)
    gallery = tiny_split.gallery.take(np.flatnonzero(tiny_split.gallery.pids != tiny_split.gallery.pids[0]))
    smaller = replace(tiny_split, gallery=gallery)
    other = run(replace(OIM, name="oim_of_fewer"), smaller)
    assert trained.count(0) == 1
    assert other.stages[0]["losses"] == alone.stages[0]["losses"]
    assert other.stages[0]["metrics"] != alone.stages[0]["metrics"]


def test_a_finished_run_is_read_not_trained_again(tiny_split, monkeypatch):
    record = run(BUC, tiny_split)
    monkeypatch.setattr(pipeline, "decode", None)
    assert asdict(run(BUC, tiny_split)) == asdict(record)


def test_features_of_images_are_those_that_the_stage_kept_was_ranked_by(tiny_split):
    record = run(BUC, tiny_split)
    query, gallery = tiny_split.query, tiny_split.gallery
    features = [reprolib.extract_features(record, part.frames, device="cpu") for part in (query, gallery)]
    assert torch.linalg.vector_norm(features[0], dim=1) == pytest.approx(np.ones(len(query)), abs=1e-5)
    ids = {"query_pids": query.pids, "gallery_pids": gallery.pids}
    ids |= {"query_camids": query.camids, "gallery_camids": gallery.camids}
    assert reprolib.rank_gallery(*features, **ids).mean_ap == record.best["mAP"]


def test_photos_without_any_label_are_clustered_and_a_stage_is_kept(tiny_split):
    photos = Split("photos", tiny_split.train)
    record = run(replace(BUC, selection="silhouette"), photos)
    assert record.untrained == record.best == {}
    assert repr(record).endswith(f"3 stages, kept {record.kept})")
    assert record.kept == np.argmax([stage["validity"].get("silhouette", -1) for stage in record.stages])
    assert all(stage["quality"]["purity"] is None for stage in record.stages)
    with pytest.raises(RecordError, match="no metric 'rank-1'; the stages have none, because nothing was ranked"):
        record.curve("rank-1")
    labels = np.load(paths.LABELS / f"{record.name}.npz")["pseudo_labels"]
    assert [row.max() + 1 for row in labels] == [s["num_clusters"] for s in record.stages]
    assert figures(run(replace(BUC, selection="silhouette"), photos, fresh=True)) == figures(record)


def test_features_by_a_record_without_its_weights_are_an_error_that_says_so(tiny_split):
    record = run(BUC, tiny_split)
    shutil.rmtree(paths.STATE)
    with pytest.raises(RecordError, match=r"does not contain model\.safetensors; load the record where it was run"):
        reprolib.extract_features(record, tiny_split.query.frames)


def test_the_record_carries_its_provenance_and_no_path(tiny_split):
    record = run(BUC, tiny_split)
    text = (paths.RUNS / f"{record.name}.json").read_text()
    assert str(paths.ROOT) not in text
    content = json.loads(text)
    assert content["settings"]["backbone"] == "resnet18"
    assert content["settings"]["recipe"]["criterion"]["regularizer_weight"] == 0.003
    assert content["settings"]["recipe"]["selection"] == "test"
    for field in ("device", "threads", "versions", "commit", "date", "seconds", "average_precision", "precision"):
        assert content["provenance"][field]
    assert asdict(load_record(paths.RUNS / f"{record.name}.json")) == asdict(record)
    labels = np.load(paths.LABELS / f"{record.name}.npz")["pseudo_labels"]
    assert [row.max() + 1 for row in labels] == [s["num_clusters"] for s in record.stages]


def test_tracklets_of_several_frames_train_by_the_video_protocol():
    record = run(BUC, make_split(frames=3))
    assert [len(s["losses"]) for s in record.stages] == [2, 5, 5]


def test_training_learns_to_tell_the_images_apart(tiny_split):
    record = reprolib.run(replace(BUC, **QUICK | {"first_stage_epochs": 6}), tiny_split, **NETWORK)
    losses = record.stages[0]["losses"]
    assert losses[-1] < losses[0]


def test_the_kept_stage_follows_the_rule():
    figures = [(0.1, 0.3, None), (0.5, 0.2, 0.1), (0.5, 0.4, 0.1), (0.2, 0.1, 0.2)]  # test, left out, silhouette
    stages = [
        {
            "stage": k,
            "metrics": {"rank-1": test},
            "validation": {"rank-1": left_out},
            "validity": {} if silhouette is None else {"silhouette": silhouette},
        }
        for k, (test, left_out, silhouette) in enumerate(figures)
    ]
    kept = {rule: select_stage(stages, rule) for rule in ("test", "last", "validation", "silhouette")}
    assert kept == {"test": 1, "last": 3, "validation": 2, "silhouette": 3}


def test_identities_left_out_of_training_are_a_validation_set(tiny_split):
    split = tiny_split.keep_identities(5, seed=3)
    assert not set(split.validation.pids) & set(split.train_pids)
    assert len(set(split.validation.pids)) == 5
    record = run(replace(BUC, selection="validation"), tiny_split, identities=5)
    left_out = [stage["validation"]["rank-1"] for stage in record.stages]
    assert record.selected == np.argmax(left_out)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(BUC, selection="validation"), "set identities="),
        (replace(OIM, selection="silhouette"), "needs clusters"),
    ],
)
def test_a_rule_that_has_nothing_to_choose_by_is_refused_before_training(recipe, message, tiny_split):
    with pytest.raises(ValueError, match=message):
        run(recipe, tiny_split)


def test_a_dataset_whose_training_identities_nobody_knows_is_run_all_the_same(tiny_split):
    unknown = run(BUC, replace(tiny_split, train_pids=np.full(len(tiny_split.train), -1)))
    assert unknown.curve("rank-1") == run(BUC, tiny_split, fresh=True).curve("rank-1")


def test_names_of_files_as_strings_and_ids_as_lists_do(tiny_split, tmp_path):
    def as_lists(samples):
        files = [str(tmp_path / f"{id(samples)}_{k}.png") for k in range(len(samples))]
        for file, pixels in zip(files, samples.frames, strict=True):
            Image.fromarray(pixels).save(file)
        lists = {name: value.tolist() for name, value in vars(samples).items() if name != "frames"}
        return type(samples)(frames=files, **lists)

    sets = (as_lists(samples) for samples in (tiny_split.train, tiny_split.query, tiny_split.gallery))
    own = Split("own", *sets, tiny_split.train_pids.tolist())
    assert figures(run(BUC, own)) == figures(run(BUC, tiny_split))


def test_a_stage_can_be_kept_without_any_label(tiny_split):
    record = run(replace(BUC, selection="silhouette"), tiny_split)
    assert record.stages[0]["validity"] == {}  # every image on its own
    assert record.selected == 1 + np.argmax([s["validity"]["silhouette"] for s in record.stages[1:]])


def test_a_subset_of_identities_is_drawn_by_the_seed_and_the_gallery_stays_whole(tiny_split):
    subset = tiny_split.keep_identities(5, seed=3)
    assert len(np.unique(subset.train_pids)) == 5
    assert len(subset.train) == 20
    assert len(subset.gallery) == len(tiny_split.gallery)
    assert np.array_equal(subset.train_pids, tiny_split.keep_identities(5, seed=3).train_pids)
    assert set(subset.train_pids) != set(tiny_split.keep_identities(5, seed=4).train_pids)


@pytest.mark.parametrize("recipe", [BUC, DBC, BUC_RELEASED, DBC_RELEASED], ids=lambda r: r.name)
def test_the_table_has_exactly_one_row_a_cluster_but_for_dbcs_released_slip(recipe, tiny_split, monkeypatch):
    rows = []
    original = algorithm.train_stage

    def spy(model, images, starts, labels, table, **settings):
        rows.append((len(table.weight), int(labels.max()) + 1))
        return original(model, images, starts, labels, table, **settings)

    monkeypatch.setattr(algorithm, "train_stage", spy)
    run(recipe, tiny_split)
    stale = recipe.table_start == "stale_means"
    assert rows == [(48, 48)] + [(clusters + 12 if stale else clusters, clusters) for clusters in (36, 24)]


def test_the_order_of_the_images_tells_nothing_of_identities(tiny_split):
    neighbors = (tiny_split.train_pids[1:] == tiny_split.train_pids[:-1]).mean()
    assert neighbors < 0.2  # 3 of 47 by chance; in the order on disk 36 of 47


def test_a_number_of_samples_is_drawn_and_a_gallery_that_is_the_training_set_with_them(tiny_split):
    subset = tiny_split.keep_samples(20, seed=1)
    assert len(subset.train) == len(subset.train_pids) == 20
    assert len(subset.gallery) == len(tiny_split.gallery)
    cifar = replace(tiny_split, gallery_is_train=True).keep_samples(20, seed=1)
    assert np.array_equal(cifar.gallery.pids, cifar.train_pids)
    assert np.array_equal(cifar.gallery.frames, cifar.train.frames)
    record = run(BUC, tiny_split, samples=20)
    assert record.settings["samples"] == 20
    with pytest.raises(ValueError, match="has 48 training samples"):
        tiny_split.keep_samples(49, seed=0)
    in_order = make_plan(replace(BUC, train_order="sorted"), "synthetic", samples=200, weights="none").split
    assert in_order.is_sorted


def spy(monkeypatch, name, note):
    """Let ``note`` see the arguments of each call that a run makes of ``algorithm.<name>``."""
    original = getattr(algorithm, name)

    def call(*arguments, **named):
        note(name, *arguments, **named)
        return original(*arguments, **named)

    monkeypatch.setattr(algorithm, name, call)


def test_no_two_stages_of_no_two_seeds_train_on_the_same_draws(tiny_split, monkeypatch):
    drawn = []
    spy(monkeypatch, "train_stage", lambda _, *__, seed, **___: drawn.append(seed))
    for seed in (0, 1):
        run(BUC, tiny_split, seed=seed)
    assert len(set(drawn)) == len(drawn) == 6


def test_clusters_are_merged_and_judged_by_the_feature_and_tables_begin_from_the_embedding(tiny_split, monkeypatch):
    seen = set()
    for name in ("merge_clusters", "cluster_validity", "cluster_means"):
        spy(monkeypatch, name, lambda name, vectors, *_, **__: seen.add((name, vectors.shape[1])))
    reprolib.run(replace(DBC_RELEASED, **QUICK | {"embedding_dim": 24}), tiny_split, **NETWORK)
    assert seen == {("merge_clusters", 32), ("cluster_validity", 32), ("cluster_means", 24)}


def test_precision_and_frames_reach_training_and_extraction(monkeypatch):
    seen = set()
    for name in ("extract", "train_stage"):
        spy(monkeypatch, name, lambda name, *_, **k: seen.add((name, k.get("precision"), k.get("frames_at_most"))))
    run(replace(BUC, frames_at_most=2), make_split(frames=3), precision="bf16")
    assert seen == {("extract", "bf16", 2), ("train_stage", "bf16", None)}


def test_of_all_weights_those_of_the_stage_kept_and_of_the_last_stay(tiny_split):
    record = run(BUC, tiny_split)
    kept = {file.parent.name for file in (paths.STATE / record.name).glob("stage_*/model.safetensors")}
    assert kept == {f"stage_{record.selected:02}", "stage_02"}


def test_the_seconds_of_a_record_are_those_of_all_parts_of_all_stages(tiny_split):
    record = run(BUC, tiny_split)
    parts = sum(sum(stage["seconds"].values()) for stage in record.stages)
    assert record.provenance["seconds"] == pytest.approx(parts, abs=0.1)


def test_a_part_of_a_training_set_is_its_gallery_too_in_another_camera_than_the_queries(tiny_split):
    assert replace(tiny_split, gallery_is_train=True).keep_samples(20, seed=1).gallery.camids.tolist() == [1] * 20


def test_who_is_seen_by_one_camera_alone_is_never_validated_on(tiny_split):
    camids = np.where(tiny_split.train_pids < 10, 0, tiny_split.train.camids)
    split = replace(tiny_split, train=replace(tiny_split.train, camids=camids))
    for seed in range(9):
        held = split.keep_identities(4, seed=seed).validation
        assert held is None or set(held.pids.tolist()) <= {10, 11}


def first_pair(a, b, distance):
    return torch.cdist(a, b).amin((-2, -1))


def test_a_linkage_of_ones_own_that_was_changed_does_not_give_the_old_run(tiny_split, monkeypatch):
    recipe = BUC_UNREGULARIZED.with_linkage(first_pair)
    run(recipe, tiny_split)
    run(recipe, tiny_split)  # read back

    def last_pair(a, b, distance):
        return torch.cdist(a, b).amax((-2, -1))

    last_pair.__name__ = "first_pair"
    with pytest.raises(StateError, match="linkage was"):
        run(BUC_UNREGULARIZED.with_linkage(last_pair), tiny_split)


def power_mean(power):
    def mean_of_powers(a, b, distance):
        return torch.cdist(a, b).pow(power).mean((-2, -1))

    return mean_of_powers


def test_a_linkage_of_ones_own_is_another_where_what_it_closes_over_is(tiny_split):
    run(BUC_UNREGULARIZED.with_linkage(power_mean(1)), tiny_split)
    run(BUC_UNREGULARIZED.with_linkage(power_mean(1)), tiny_split)  # read back
    for other in (2, torch.ones(1)):
        with pytest.raises(StateError, match="linkage was"):
            run(BUC_UNREGULARIZED.with_linkage(power_mean(other)), tiny_split)


WEIGHT, WEIGHTS = 1.0, {"size": 1.0}


def penalty(a, b):
    return WEIGHT * a.shape[1] * b.shape[1]


def with_penalty(a, b, distance):
    return torch.cdist(a, b).amin((-2, -1)) + WEIGHTS["size"] + penalty(a, b)


def test_a_linkage_of_ones_own_is_another_where_a_function_or_a_dictionary_that_it_uses_is(tiny_split, monkeypatch):
    recipe = BUC_UNREGULARIZED.with_linkage(with_penalty)
    run(recipe, tiny_split)
    run(recipe, tiny_split)  # read back
    with monkeypatch.context() as patch:
        patch.setitem(WEIGHTS, "size", 2.0)
        with pytest.raises(StateError, match=r"linkage was .*to keep both, give the function another name"):
            run(recipe, tiny_split)
    monkeypatch.setitem(globals(), "WEIGHT", 2.0)
    with pytest.raises(StateError, match="linkage was"):
        run(recipe, tiny_split)


def test_what_a_linkage_uses_is_told_alike_in_every_process():
    held = {"names": {"b", "a"}, "function": penalty, "rows": [np.ones(2), torch.ones(2)]}
    told = plan._form(held)
    assert told == plan._form(held | {"names": {"a", "b"}, "function": with_penalty})
    assert "['a', 'b']" in told
    assert " at 0x" not in told
    assert told != plan._form(held | {"rows": [np.ones(2), torch.zeros(2)]})


def test_the_record_of_another_run_is_not_taken_for_ones_own(tiny_split):
    own, other = (run(BUC_UNREGULARIZED, tiny_split, seed=seed).name for seed in (0, 1))
    (paths.RUNS / f"{own}.json").write_bytes((paths.RUNS / f"{other}.json").read_bytes())
    with pytest.raises(RecordError, match=f"contains another record, {other}"):
        run(BUC_UNREGULARIZED, tiny_split)


def test_labels_that_are_damaged_are_named(tiny_split):
    record = run(BUC_UNREGULARIZED, tiny_split)
    file = paths.LABELS / f"{record.name}.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RecordError, match=f"{record.name}.npz: not the labels of a run"):
        record.pseudo_labels()


@pytest.mark.parametrize("settings", [{"seed": 10**15}, {"identities": 2.0}, {"samples": True}])
def test_numbers_that_cannot_be_are_said_before_anything_is_trained(tiny_split, monkeypatch, settings):
    monkeypatch.setattr(algorithm, "train_stage", None)
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=.* must be an integer"):
        run(BUC_UNREGULARIZED, tiny_split, **settings)


def test_what_is_no_dataset_is_said(tiny_split):
    with pytest.raises(ValueError, match="dataset is a NoneType; pass a dataset's name, or a Split"):
        run(BUC_UNREGULARIZED, None)


def test_a_linkage_of_ones_own_that_cannot_be_is_said_before_anything_is_trained(tiny_split, monkeypatch):
    def of_one_pair(a, b, distance):
        return (a.mean(0) - b.mean(0)).norm()

    monkeypatch.setattr(algorithm, "train_stage", None)
    with pytest.raises(
        ValueError, match=r"linkage of_one_pair fails .*its signature must be of_one_pair\(a, b, distance\)"
    ):
        run(BUC_UNREGULARIZED.with_linkage(of_one_pair), tiny_split)

    def of_no_pair(a, b, distance):
        return torch.tensor(1.0)

    with pytest.raises(ValueError, match=r"linkage of_no_pair returns \(\) for 3 pairs; its signature must be"):
        run(BUC_UNREGULARIZED.with_linkage(of_no_pair), tiny_split)

    def with_deviation(a, b, distance):
        return (a - a.mean(1, keepdim=True)).square().sum((1, 2)) / (a.shape[1] - 1)

    with pytest.raises(ValueError, match=r"finite .* not negative; for clusters of 1 and 1 images it returns \[nan"):
        run(BUC_UNREGULARIZED.with_linkage(with_deviation), tiny_split)

    def by_first_size(a, b, distance):
        return torch.cdist(a, b).amin((1, 2)) + a.shape[1]

    with pytest.raises(ValueError, match=r"linkage by_first_size must be symmetric; it returns \[.*\] for \(a, b\)"):
        run(BUC_UNREGULARIZED.with_linkage(by_first_size), tiny_split)


def test_a_bad_silhouette_is_better_than_none():
    stages = [{"validity": {}}, {"validity": {"silhouette": -0.2}}, {"validity": {"silhouette": -0.3}}]
    assert select_stage(stages, "silhouette") == 1


def test_a_linkage_of_ones_own_may_know_the_width_of_the_features(tiny_split):
    projection = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))

    def projected(a, b, distance):
        return torch.cdist(a @ projection, b @ projection).amin((-2, -1))

    assert run(BUC_UNREGULARIZED.with_linkage(projected), tiny_split).stages[-1]["num_clusters"] == 24


def test_of_a_sorted_split_a_table_that_leaks_warns(tiny_split):
    in_order = tiny_split.sort()
    with pytest.warns(UserWarning, match=r"sorted by identity.*use split.shuffle\(0\)"):
        make_plan(DBC_RELEASED, in_order, **NETWORK)
    make_plan(DBC_RELEASED, in_order.shuffle(0), **NETWORK)
    make_plan(BUC, in_order, **NETWORK)


@pytest.mark.parametrize("seed", [-1, "1", 0.5, True])
def test_a_seed_is_a_whole_number(tiny_split, seed):
    with pytest.raises(ValueError, match=f"seed={seed!r} must be an integer"):
        make_plan(BUC, tiny_split, seed=seed, **NETWORK)


def test_a_record_finds_its_labels_and_weights_where_it_was_read_from(tiny_split, monkeypatch, tmp_path):
    record = run(BUC, tiny_split)
    file = paths.RUNS / f"{record.name}.json"
    monkeypatch.setattr(paths, "LABELS", tmp_path / "elsewhere")
    monkeypatch.setattr(paths, "STATE", tmp_path / "elsewhere")
    with pytest.raises(RecordError, match=r"npz: the labels of the run are not there"):
        record.pseudo_labels()
    found = load_record(file)
    assert [row.max() + 1 for row in found.pseudo_labels()] == [s["num_clusters"] for s in record.stages]
    images = torch.rand(2, 1, 3, 32, 16)
    assert reprolib.load_model(found)(images).feature.shape == (2, 32)


def test_reprs_are_short(tiny_split):
    assert repr(tiny_split) == "Split(tiny: train 48, query 48, gallery 48)"
    assert repr(tiny_split.train) == "Tracklets(48 of 48 frames)"
    assert repr(tiny_split.query) == "LabelledTracklets(48 of 48 frames)"
    assert len(repr(run(BUC, tiny_split))) < 150


@pytest.mark.parametrize(
    ("starts", "message"), [([0, 1], "starts ends at 1, but there are 2"), ([0, 1, 5], "ends at 5")]
)
def test_features_are_asked_of_tracklets_that_there_are(tiny_split, starts, message):
    record = run(BUC, tiny_split)
    with pytest.raises(ValueError, match=message):
        reprolib.extract_features(record, tiny_split.query.frames[:2], starts=np.array(starts))
