"""Every loader on a small tree of noise in the layout in which the dataset is published; nothing is downloaded."""

import errno
import io
import os
import pickle
import tarfile
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from reprolib import BUC, datasets, paths, results
from reprolib.datasets import DatasetError, Tracklets, check, fingerprint, load_dataset
from reprolib.datasets.published import SOURCES, Counts
from reprolib.plan import decode, make_plan
from reprolib.record import RunRecord

RNG = np.random.default_rng(0)
PARTS = ("bounding_box_train", "query", "bounding_box_test")
MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c3s1_000551_01.jpg", "0007_c6s3_077142_05.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "1488_c6s3_094992_00.jpg.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "-1_c6s3_094992_04.jpg.jpg",
        "0000_c4s6_022316_04.jpg.jpg",
        "0001_c2s1_000301_00.jpg",
        "1488_c2s3_065527_02.jpg",
    ],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "7140_c8_f0170273.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051341.jpg", "4998_c1_f0044158.jpg"],
}
DUKE_VIDEO = {
    "train": [f"0001/0003/0001_C6_F{i:04}_X{30823 + i}.jpg" for i in (1, 2, 10)]
    + [f"0001/0004/0001C2F{i:04}X{i}.jpg" for i in (1, 2)],
    "query": ["7140/2193/7140_C2_F0044_X200413.jpg"],
    "gallery": ["7140/2193/7140_C2_F0044_X200413.jpg", "7140/2194/7140_C8_F0001_X7.jpg"],
}
CLASSES = ("airplane", "ship")
EVERY = tuple(SOURCES)


def draw(file: Path) -> None:
    """A small image of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if file.suffix == ".png" else "JPEG"
    Image.fromarray(RNG.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(file, format=kind)


def draw_tree(folder: Path, tree: dict[str, list[str]]) -> Path:
    for part, names in tree.items():
        for name in names:
            draw(folder / part / name)
    return folder


def draw_mars(folder: Path) -> Path:
    """Two training tracklets; in bbox_test two of junk, one distractor, and pid 2 twice, once as the query."""
    index = {
        "train": [("0001", 1, 3, 2), ("0003", 6, 2, 1)],
        "test": [("00-1", 1, 2, 1), ("0000", 2, 2, 1), ("0002", 1, 3, 1), ("0002", 4, 1, 2), ("00-1", 5, 1, 1)],
    }
    (folder / "info").mkdir(parents=True)
    for part, tracklets in index.items():
        names, rows = [], []
        for pid, camera, length, number in tracklets:
            rows.append((len(names) + 1, len(names) + length, int(pid[2:]), camera))
            names += [f"{pid}C{camera}T{number:04}F{i + 1:03}.jpg" for i in range(length)]
        for name in names:
            draw(folder / f"bbox_{part}" / name[:4] / name)
        (folder / "info" / f"{part}_name.txt").write_text("\n".join(names) + "\n")
        savemat(folder / "info" / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, dtype=np.int32)})
    savemat(folder / "info" / "query_IDX.mat", {"query_IDX": np.array([[3]], dtype=np.uint16)})
    return folder


def batches() -> dict[str, bytes]:
    """CIFAR-10's six batches, three images each: the red of image i is i, its green 100 + i, its blue 200 + i."""
    planes = (np.array([0, 100, 200]) + np.arange(3)[:, None]).astype(np.uint8)
    content = {b"data": np.repeat(planes, 1024, axis=1), b"labels": [9, 0, 3], b"filenames": [b"a", b"b", b"c"]}
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    return dict.fromkeys(names, pickle.dumps(content, protocol=2))


def write_batches(archive: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def draw_classes(folder: Path) -> Path:
    for file in [
        f"{part}/{c}/{i:04}.{end}" for part in ("train", "test") for c in CLASSES for i, end in ((0, "jpg"), (1, "png"))
    ]:
        draw(folder / file)
    return folder


def draw_dataset(name: str, root: Path) -> Path:
    folder = root / SOURCES[name].folders[0]
    trees = {"market1501": MARKET, "dukemtmc-reid": DUKE, "dukemtmc-videoreid": DUKE_VIDEO}
    if name in trees:
        return draw_tree(folder, trees[name])
    return draw_mars(folder) if name == "mars" else draw_classes(folder)


def load(name: str, root: Path | None, **options) -> datasets.Split:
    """``load_dataset`` of a small tree, which is not the whole of the dataset and is said not to be."""
    with pytest.warns(UserWarning, match="published: "):
        return load_dataset(name, root=root, **options)


def names(tracklets: Tracklets) -> list[list[str]]:
    return [[f.name for f in tracklets.frames[a:b]] for a, b in pairwise(tracklets.starts)]


def pack(folder: Path, archive: Path) -> None:
    """Archive a folder under its own name and remove it."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as z:
            for f in files:
                z.write(f, f.relative_to(folder.parent))
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as t:
            t.add(folder, folder.name)
    for f in files:
        f.unlink()
    for f in sorted((f for f in folder.rglob("*")), reverse=True):
        f.rmdir()
    folder.rmdir()


# Layouts


def test_market1501_leaves_out_junk_and_keeps_distractors(tmp_path):
    folder = draw_dataset("market1501", tmp_path)
    for part in PARTS:
        (folder / part / "Thumbs.db").write_bytes(b"x")
        (folder / part / ".DS_Store").write_bytes(b"x")
    split = load("market1501", tmp_path, train_order="sorted")
    assert names(split.train) == [[name] for name in MARKET["bounding_box_train"]]
    assert split.train_pids.tolist() == [2, 2, 7]
    assert split.train.camids.tolist() == [0, 2, 5]
    assert (split.query.pids.tolist(), split.query.camids.tolist()) == ([1, 1488], [0, 5])
    assert (split.gallery.pids.tolist(), split.gallery.camids.tolist()) == ([0, 1, 1488], [3, 1, 1])
    assert names(split.gallery) == [[name] for name in MARKET["bounding_box_test"][2:]]
    assert not split.is_video


def test_market1501_with_junk_in_its_gallery_as_the_papers_count_it(tmp_path):
    draw_dataset("market1501", tmp_path)
    split = load("market1501", tmp_path, junk="in_gallery")
    assert names(split.gallery) == [[name] for name in MARKET["bounding_box_test"]]
    assert split.gallery.pids.tolist() == [-1, -1, 0, 1, 1488]
    assert len(split.query) == 2


def test_dukemtmc_reid_in_its_published_layout(tmp_path):
    draw_dataset("dukemtmc-reid", tmp_path)
    split = load("dukemtmc-reid", tmp_path, train_order="sorted")
    assert (split.train_pids.tolist(), split.train.camids.tolist()) == ([1, 7140], [1, 7])
    assert (split.query.pids.tolist(), split.query.camids.tolist()) == ([5], [1])
    assert (split.gallery.pids.tolist(), split.gallery.camids.tolist()) == ([5, 4998], [4, 0])


def test_mars_is_cut_into_tracklets_by_its_index(tmp_path):
    draw_dataset("mars", tmp_path)
    split = load("mars", tmp_path, train_order="sorted")
    assert names(split.train) == [
        ["0001C1T0002F001.jpg", "0001C1T0002F002.jpg", "0001C1T0002F003.jpg"],
        ["0003C6T0001F001.jpg", "0003C6T0001F002.jpg"],
    ]
    assert (split.train_pids.tolist(), split.train.camids.tolist()) == ([1, 3], [0, 5])
    assert names(split.query) == [[f"0002C1T0001F00{i}.jpg" for i in (1, 2, 3)]]
    assert (split.query.pids.tolist(), split.query.camids.tolist()) == ([2], [0])
    assert names(split.gallery) == [
        ["0000C2T0001F001.jpg", "0000C2T0001F002.jpg"],
        [f"0002C1T0001F00{i}.jpg" for i in (1, 2, 3)],  # the query, as in MARS's own program
        ["0002C4T0002F001.jpg"],
    ]
    assert (split.gallery.pids.tolist(), split.gallery.camids.tolist()) == ([0, 2, 2], [1, 0, 3])
    assert split.is_video


def test_dukemtmc_videoreid_with_names_of_both_kinds(tmp_path):
    draw_dataset("dukemtmc-videoreid", tmp_path)
    split = load("dukemtmc-videoreid", tmp_path, train_order="sorted")
    frames = [name.rsplit("/")[-1] for name in DUKE_VIDEO["train"]]
    assert names(split.train) == [frames[:3], frames[3:]]
    assert split.train.camids.tolist() == [5, 1]
    assert (split.query.pids.tolist(), split.query.camids.tolist()) == ([7140], [1])
    assert split.gallery.camids.tolist() == [1, 7]


@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar10_batches_become_images_with_their_colors_in_place(tmp_path, unpacked):
    if unpacked:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, content in batches().items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    else:
        write_batches(tmp_path / "cifar-10-python.tar.gz", batches())
    split = load("cifar10", tmp_path, train_order="sorted")
    assert split.query.frames.shape == (3, 32, 32, 3)
    assert split.query.frames.dtype == np.uint8
    assert split.query.frames[1, 5, 7].tolist() == [1, 101, 201]
    assert split.query.pids.tolist() == [9, 0, 3]
    assert split.train_pids.tolist() == [0] * 5 + [3] * 5 + [9] * 5
    assert len(split.gallery) == 15
    assert split.gallery_is_train


def test_cifar10_class_folders_are_read_as_files(tmp_path):
    folder = draw_dataset("cifar10", tmp_path)
    (folder / "train" / "airplane" / "0000.jpg").rename(folder / "train" / "airplane" / "0000.JPEG")
    split = load("cifar10", tmp_path, train_order="sorted")
    assert names(split.train) == [["0000.JPEG"], ["0001.png"], ["0000.jpg"], ["0001.png"]]
    assert split.images == "JPEG, not as published"  # published as pixels, and more: a record has to say it
    assert split.train_pids.tolist() == split.gallery.pids.tolist() == split.query.pids.tolist() == [0, 0, 1, 1]


def test_cifar10_gallery_is_the_training_set_and_no_match_is_passed_over(tmp_path):
    write_batches(tmp_path / "cifar-10-python.tar.gz", batches())
    split = load("cifar10", tmp_path)
    assert set(split.query.camids) == {0}
    assert set(split.gallery.camids) == {1}
    assert split.images == "not as published"  # of its own pixels, but few


# Laws


@pytest.mark.parametrize("name", EVERY)
def test_training_sees_no_identity(tmp_path, name):
    draw_dataset(name, tmp_path)
    split = load(name, tmp_path)
    assert not hasattr(split.train, "pids")
    assert len(split.train_pids) == len(split.train)


def test_training_order_is_shuffled_the_same_way_each_time(tmp_path):
    tree = {part: [f"{i // 4:04}_c1s1_{i:06}_00.jpg" for i in range(40)] for part in PARTS}
    draw_tree(tmp_path / "Market-1501", tree)
    shuffled, again = load("market1501", tmp_path), load("market1501", tmp_path)
    in_order = load("market1501", tmp_path, train_order="sorted")
    assert shuffled.train.frames == again.train.frames != in_order.train.frames
    assert dict(zip(shuffled.train.frames, shuffled.train_pids, strict=True)) == dict(
        zip(in_order.train.frames, in_order.train_pids, strict=True)
    )
    assert (np.diff(in_order.train_pids) >= 0).all()
    neighbours_alike = np.mean(np.diff(shuffled.train_pids) == 0)
    assert neighbours_alike < 0.3  # 0.77 in order, 3 / 39 by chance


def test_synthetic_people_are_shuffled_too(monkeypatch):
    frames = np.zeros((20, 4, 2, 3), dtype=np.uint8)
    own = datasets.LabelledTracklets(frames, np.arange(21), np.zeros(20, np.int64), np.arange(20))
    split = datasets.Split("synthetic", Tracklets(frames, own.starts, own.camids), own, own, own.pids)
    monkeypatch.setattr(datasets, "_painted", lambda name: split)
    for name in ("synthetic", "synthetic-video"):
        assert load_dataset(name).train_pids.tolist() != list(range(20))
        assert load_dataset(name, train_order="sorted").train_pids.tolist() == list(range(20))


def test_synthetic_people_are_the_callers_own_though_they_are_painted_once():
    one = load_dataset("synthetic")
    was = one.query.frames.copy()
    one.query.frames[:], one.query.pids[:] = 0, 0
    other = load_dataset("synthetic")
    assert (other.query.frames == was).all()
    assert other.query.pids.any()


def test_counts_are_those_of_dbc_table_1_but_for_its_slips():
    table = pd.read_csv(paths.DATA / "published.csv").query("exhibit == 'DBC Table I'")
    printed = table.set_index(["dataset", "metric"])["value"].astype(int)
    differs = {}
    for (name, metric), value in printed.items():
        part, kind = metric.split("_")
        ours = getattr(SOURCES[name].counts[part], "identities" if kind == "ids" else "tracklets")
        if ours != value:
            differs[name, metric] = (value, ours)
    assert differs == {
        ("market1501", "gallery_samples"): (19732, 19732 - 3819),  # junk
        ("mars", "gallery_ids"): (636, 636 - 2),  # pids 0 and -1
        ("mars", "gallery_samples"): (12180, 12180 - 870),  # junk
        ("dukemtmc-videoreid", "gallery_ids"): (801, 702 + 408),
    }


# Places


@pytest.mark.parametrize("name", EVERY)
def test_dataset_is_found_below_the_root_one_further_down_and_as_the_root(tmp_path, name):
    folder = draw_dataset(name, tmp_path / "a")
    (tmp_path / "b").mkdir()
    nested = (tmp_path / "b" / SOURCES[name].folders[-1] / folder.name).resolve()
    nested.parent.mkdir(parents=True)
    os.symlink(folder, nested)
    os.symlink(folder, tmp_path / "another name")
    sizes = {
        len(load(name, root).train) for root in (tmp_path / "a", tmp_path / "b", folder, tmp_path / "another name")
    }
    assert len(sizes) == 1
    assert sizes.pop() > 0


def test_root_is_the_argument_then_the_environment_then_data(tmp_path, monkeypatch):
    for name in ("argument", "environment", "data"):
        draw_dataset("market1501", tmp_path / name)
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "environment"))
    assert tmp_path / "argument" in load("market1501", tmp_path / "argument").train.frames[0].parents
    assert tmp_path / "environment" in load("market1501", None).train.frames[0].parents
    monkeypatch.delenv("REPROLIB_DATA")
    assert tmp_path / "data" in load("market1501", None).train.frames[0].parents


# Archives


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tgz", ".tar"])
def test_archive_is_unpacked_once_beside_itself(tmp_path, capsys, ending):
    folder = draw_dataset("market1501", tmp_path)
    pack(folder, tmp_path / f"{folder.name}{ending}")
    assert len(load("market1501", tmp_path).train) == 3
    assert f"{folder.name}{ending}" in capsys.readouterr().err
    assert {f.name for f in tmp_path.iterdir()} == {folder.name, f"{folder.name}{ending}", f"{folder.name}.lock"}
    load("market1501", tmp_path)
    assert capsys.readouterr().err == ""


def test_archive_without_a_top_folder_is_unpacked_into_one(tmp_path):
    folder = draw_classes(tmp_path / "elsewhere")
    with tarfile.open(tmp_path / "cifar10-jpeg.tar.xz", "w:xz") as tar:
        tar.add(folder / "train", "train")
        tar.add(folder / "test", "test")
    assert len(load("cifar10", tmp_path).train) == 4
    assert (tmp_path / "cifar10-jpeg" / "train").is_dir()


def test_both_archives_of_mars_are_unpacked(tmp_path):
    folder = draw_mars(tmp_path / "MARS")
    for part in ("bbox_train", "bbox_test"):
        pack(folder / part, folder / f"{part}.zip")
    assert len(load("mars", tmp_path).gallery) == 3


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_archive_cut_off_leaves_nothing_behind(tmp_path, ending):
    folder = draw_dataset("market1501", tmp_path)
    archive = tmp_path / f"{folder.name}{ending}"
    pack(folder, archive)
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match=r"cannot be unpacked .* download it again"):
        load_dataset("market1501", root=tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {archive.name, f"{folder.name}.lock"}


def test_a_folder_in_which_no_archive_can_be_unpacked_is_named(tmp_path):
    folder = draw_dataset("market1501", tmp_path)
    pack(folder, tmp_path / f"{folder.name}.zip")
    (tmp_path / f"{folder.name}.lock").mkdir()  # as good as a folder that may not be written to, for root too
    with pytest.raises(DatasetError, match=r"Market-1501.*\.zip: cannot be unpacked .*is writable"):
        load_dataset("market1501", root=tmp_path)


@pytest.mark.parametrize("core", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_pickled_by_old_and_new_numpy_are_read(tmp_path, core):
    spelled = {name: c.replace(b"numpy._core.multiarray", core.encode()) for name, c in batches().items()}
    write_batches(tmp_path / "cifar-10-python.tar.gz", spelled)
    assert len(load("cifar10", tmp_path).train) == 15


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"no pickle",
        pickle.dumps({b"labels": [1]}),
        pickle.dumps({b"data": 1, b"labels": [1]}),
        pickle.dumps({b"data": [[0] * 3072], b"labels": [10]}),
        pickle.dumps([1, 2]),
    ],
)
def test_damaged_batch_is_named(tmp_path, batch):
    write_batches(tmp_path / "cifar-10-python.tar.gz", batches() | {"test_batch": batch})
    with pytest.raises(DatasetError, match=r"test_batch: not a published batch .* download"):
        load_dataset("cifar10", root=tmp_path)


def test_missing_batch_is_named(tmp_path):
    rest = batches()
    del rest["data_batch_5"]
    write_batches(tmp_path / "cifar-10-python.tar.gz", rest)
    with pytest.raises(DatasetError, match="data_batch_5 missing; download"):
        load_dataset("cifar10", root=tmp_path)


def test_cifar10_archive_cut_off_is_named(tmp_path):
    archive = write_batches(tmp_path / "cifar-10-python.tar.gz", batches())
    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz: cannot be read .* download"):
        load_dataset("cifar10", root=tmp_path)


# What is wrong is said, with the path and the remedy


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(ValueError, match="'market' is not one of synthetic, synthetic-video, market1501"):
        load_dataset("market")
    with pytest.raises(ValueError, match="'random' is not one of shuffled, sorted"):
        load_dataset("market1501", train_order="random")
    with pytest.raises(
        ValueError, match=r"junk 'in_gallery' of mars is not one of left_out, or in_gallery \(only for market1501"
    ):
        load_dataset("mars", junk="in_gallery")
    with pytest.raises(ValueError, match="junk 'kept' of market1501 is not one of left_out"):
        load_dataset("market1501", junk="kept")
    with pytest.raises(ValueError, match="'synthetic' is not one of market1501"):
        check("synthetic")


@pytest.mark.parametrize("name", EVERY)
def test_missing_dataset_names_the_place_the_folder_and_the_source(tmp_path, name):
    source = SOURCES[name]
    with pytest.raises(DatasetError) as error:
        load_dataset(name, root=tmp_path)
    for part in (str(tmp_path), source.folders[0], source.parts[0], source.origin):
        assert part in str(error.value)


def test_missing_root_names_the_ways_to_set_it(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere: no such folder.*--data-root or REPROLIB_DATA"):
        load_dataset("mars", root=tmp_path / "nowhere")


def test_names_of_files_may_come_as_a_list_an_array_or_one_by_one():
    given = ["a.jpg", "b.jpg"]
    for frames in (given, np.array(given), np.array(given, object), map(Path, given), (Path(name) for name in given)):
        assert Tracklets(frames, np.arange(3), np.zeros(2, np.int32)).frames == (Path("a.jpg"), Path("b.jpg"))


def test_photos_that_nobody_knows_are_counted():
    split = datasets.Split("photos", Tracklets(["a.jpg", "b.jpg"], [0, 1, 2], [0, 1]))
    assert datasets.summarize(split)["counts"] == {"train": [1, 2, 2]}


def test_of_a_dataset_that_is_not_as_published_every_number_says_so(tmp_path):
    draw_dataset("market1501", tmp_path)
    split = load("market1501", tmp_path)
    assert split.images == "not as published"
    plan = make_plan(replace(BUC, batch_size=2), split, backbone="resnet18", weights="none", device="cpu")
    column = results.column(RunRecord(plan.settings, {}, {}))
    assert column == "market1501, not as published · resnet18 from scratch 256×128"


def test_everything_wrong_is_said_at_once(tmp_path):
    folder = draw_dataset("market1501", tmp_path)
    (folder / "query").rename(folder / "queries")
    (folder / "bounding_box_train" / "IMG_0001.jpg").write_bytes(b"x")
    (folder / "bounding_box_test" / "0001_c2s1_000301_00.jpg").write_bytes(b"")
    os.symlink(tmp_path / "gone", folder / "bounding_box_test" / "0001_c2s1_000302_00.jpg")
    with pytest.raises(DatasetError) as error:
        load_dataset("market1501", root=tmp_path)
    for line in (
        "Market-1501 cannot be used as it is: 4 problem(s)",
        f"{folder}/query: missing; unpack",
        f"{folder}/bounding_box_train/IMG_0001.jpg: this dataset has no files with such names; move it",
        f"{folder}/bounding_box_test/0001_c2s1_000301_00.jpg: empty or unreadable; extract it from",
        f"{folder}/bounding_box_test/0001_c2s1_000302_00.jpg: empty or unreadable; extract it from",
        f"run `reprolib check-data market1501 --data-root {tmp_path}` for details",
    ):
        assert line in str(error.value)


def test_names_of_another_dataset_are_foreign(tmp_path):
    draw_tree(tmp_path / "Market-1501", DUKE)
    with pytest.raises(DatasetError, match=r"5 problem\(s\)\n  .*0001_c2_f0046182\.jpg: this dataset has no files"):
        load_dataset("market1501", root=tmp_path)


def test_market1501_has_six_cameras(tmp_path):
    folder = draw_dataset("market1501", tmp_path)
    draw(folder / "query" / "0001_c7s1_000301_00.jpg")
    with pytest.raises(DatasetError, match=r"0001_c7s1_000301_00\.jpg: this dataset has no files with such names"):
        load_dataset("market1501", root=tmp_path)


def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    folder, scan = draw_dataset("market1501", tmp_path) / "query", os.scandir

    def forbidden(place):
        if place == folder:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DatasetError, match=r"query: cannot be read \(Permission denied\); make it readable"):
        load_dataset("market1501", root=tmp_path)


def test_empty_folder_is_said(tmp_path):
    folder = draw_tree(tmp_path / "DukeMTMC-reID", DUKE | {"query": []})
    (folder / "query").mkdir()
    with pytest.raises(DatasetError, match="query: empty; unpack"):
        load_dataset("dukemtmc-reid", root=tmp_path)


@pytest.mark.parametrize("file", ["tracks_train_info.mat", "query_IDX.mat", "test_name.txt"])
@pytest.mark.parametrize("damage", [None, b"", b"\xff\xfe neither text nor MATLAB"])
def test_mars_index_missing_or_damaged_is_named(tmp_path, file, damage):
    broken = draw_mars(tmp_path / "MARS") / "info" / file
    broken.write_bytes(damage) if damage is not None else broken.unlink()
    with pytest.raises(DatasetError, match=rf"{file}.*download the folder info from .*MARS-evaluation"):
        load_dataset("mars", root=tmp_path)


@pytest.mark.parametrize(("rows", "queries"), [([[1, 4, 2, 1]], [1]), ([[1, 99, 0, 2]], [1]), ([[1, 1, 0, 2]], [2])])
def test_mars_index_that_does_not_fit_is_refused(tmp_path, rows, queries):
    info = draw_mars(tmp_path / "MARS") / "info"
    savemat(info / "tracks_test_info.mat", {"track_test_info": np.array(rows)})
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([queries])})
    with pytest.raises(DatasetError, match="download the folder info from"):
        load_dataset("mars", root=tmp_path)


def test_mars_frames_missing_are_counted_and_junk_may_be(tmp_path):
    folder = draw_mars(tmp_path / "MARS")
    pack(folder / "bbox_test" / "00-1", tmp_path / "junk.zip")
    assert len(load("mars", tmp_path).gallery) == 3
    (folder / "bbox_test" / "0002" / "0002C1T0001F002.jpg").unlink()
    with pytest.raises(
        DatasetError, match=r"bbox_test: 1 frames missing, first 0002C1T0001F002\.jpg; unpack bbox_test"
    ):
        load_dataset("mars", root=tmp_path)


@pytest.mark.parametrize("name", ["0001_C7_F0002_X9.jpg", "0002_C6_F0002_X9.jpg"])
def test_video_tracklet_of_two_cameras_or_people_is_refused(tmp_path, name):
    folder = draw_dataset("dukemtmc-videoreid", tmp_path)
    draw(folder / "train" / "0001" / "0003" / name)
    with pytest.raises(DatasetError, match="0001/0003: frames of another person or camera"):
        load_dataset("dukemtmc-videoreid", root=tmp_path)


def test_stray_file_among_tracklets_is_refused(tmp_path):
    folder = draw_dataset("dukemtmc-videoreid", tmp_path)
    draw(folder / "train" / "0001" / "cover.jpg")
    with pytest.raises(DatasetError, match=r"cover\.jpg: a file where this dataset has folders; move it"):
        load_dataset("dukemtmc-videoreid", root=tmp_path)


def test_classes_of_train_and_test_must_agree(tmp_path):
    folder = draw_dataset("cifar10", tmp_path)
    draw(folder / "train" / "zebra" / "0000.jpg")
    with pytest.raises(DatasetError, match=r"train has the classes .*'zebra'"):
        load_dataset("cifar10", root=tmp_path)


# check


def test_check_sets_counts_beside_the_published(tmp_path, monkeypatch):
    folder = draw_dataset("market1501", tmp_path)
    report = check("market1501", tmp_path)
    assert not report.ok
    assert report.counts == {"train": Counts(2, 3, 3), "query": Counts(2, 2, 2), "gallery": Counts(2, 3, 2)}
    assert "3 of 12,936" in str(report)
    assert "DIFFERS" in str(report)
    whole = replace(SOURCES["market1501"], counts=report.counts)
    monkeypatch.setitem(SOURCES, "market1501", whole)
    report = check("market1501", tmp_path)
    assert report.ok
    assert str(folder) in str(report)
    assert len(load_dataset("market1501", root=tmp_path).train) == 3  # as published: no warning


@pytest.mark.parametrize("damage", ["truncated", "text", "16 bits", "too small"])
def test_deep_check_finds_images_that_no_run_can_use(tmp_path, damage):
    folder = draw_dataset("market1501", tmp_path)
    file = folder / "query" / "0001_c1s1_001051_00.jpg"
    if damage in ("truncated", "text"):
        file.write_bytes(file.read_bytes()[:-60] if damage == "truncated" else b"<html>not found</html>")
    else:
        image = np.full((64, 32), 1000, np.uint16) if damage == "16 bits" else np.zeros((4, 4), np.uint8)
        Image.fromarray(image).save(file, format="PNG")
    assert check("market1501", tmp_path).problems == ()
    (problem,) = check("market1501", tmp_path, deep=True).problems
    assert problem.startswith(f"{file}: not a readable image")
    assert "restore it, or leave it out" in problem


def test_deep_check_of_arrays_has_no_file_to_open(tmp_path):
    write_batches(tmp_path / "cifar-10-python.tar.gz", batches())
    assert check("cifar10", tmp_path, deep=True).problems == ()


@pytest.mark.parametrize("name", EVERY)
def test_check_of_a_missing_dataset_says_where_to_get_it_and_on_what_terms(tmp_path, name):
    report = check(name, tmp_path)
    assert not report.ok
    for part in ("not found", SOURCES[name].origin, SOURCES[name].terms):
        assert part in str(report)
    assert ("withdrawn" in str(report)) == name.startswith("duke")


def test_check_writes_out_twenty_problems_and_counts_the_rest(tmp_path):
    folder = draw_dataset("market1501", tmp_path)
    for i in range(23):
        (folder / "query" / f"{i}.jpg").write_bytes(b"x")
    assert str(check("market1501", tmp_path)).count("move it elsewhere") == 20
    assert "and 3 more" in str(check("market1501", tmp_path))


# fingerprint


def test_fingerprint_changes_with_every_change_of_the_files(tmp_path):
    draw_dataset("market1501", tmp_path)
    gallery = load("market1501", tmp_path).gallery
    seen = {
        fingerprint(gallery),
        fingerprint(gallery.take(np.array([0, 1]))),
        fingerprint(gallery.take(np.array([2, 1, 0]))),
    }
    with gallery.frames[0].open("ab") as file:
        file.write(b"x")
    seen.add(fingerprint(gallery))
    assert len(seen) == 4


def test_fingerprint_notices_a_file_replaced_by_one_of_its_size_if_asked(tmp_path):
    draw_dataset("market1501", tmp_path)
    gallery = load("market1501", tmp_path).gallery
    before, written = fingerprint(gallery), fingerprint(gallery, written=True)
    file = gallery.frames[0]
    content, time = file.read_bytes(), file.stat().st_mtime_ns
    file.write_bytes(content[:-1] + b"x")
    os.utime(file, ns=(time, time + 1_000_000))  # a clock is coarser than two writes of a test
    assert fingerprint(gallery) == before
    assert fingerprint(gallery, written=True) != written


def test_an_image_that_changed_is_decoded_again_and_another_size_has_its_own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    draw_dataset("market1501", tmp_path)
    split, cpu = load("market1501", tmp_path), torch.device("cpu")
    before = decode(split, (128, 64), parts=["train"], device=cpu)["train"].pixels
    file = split.train.frames[0]
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    with Image.open(file) as image:
        changed = Image.new("RGB", image.size)
    changed.save(file, "jpeg")
    file.write_bytes(file.read_bytes().ljust(size, b"\0"))  # the bytes that it had, as many
    os.utime(file, ns=(time, time + 1_000_000))
    assert file.stat().st_size == size
    after = decode(split, (128, 64), parts=["train"], device=cpu)["train"].pixels
    assert before[0].any()
    assert not after[0].any()
    assert torch.equal(before[1:], after[1:])
    assert decode(split, (8, 4), parts=["train"], device=cpu)["train"].pixels.shape[1:3] == (8, 4)


def test_fingerprint_does_not_depend_on_where_the_dataset_lies(tmp_path):
    folder = draw_dataset("mars", tmp_path / "a")
    before = fingerprint(load("mars", tmp_path / "a").train)
    (tmp_path / "b").mkdir()
    folder.rename(tmp_path / "b" / "MARS")
    assert fingerprint(load("mars", tmp_path / "b").train) == before


def test_without_starts_every_frame_is_a_tracklet():
    frames = RNG.integers(0, 256, (3, 4, 2, 3), dtype=np.uint8)
    assert Tracklets(frames, None, np.zeros(3, np.int64)).starts.tolist() == [0, 1, 2, 3]


def test_fingerprint_changes_with_every_change_of_the_pixels():
    frames = RNG.integers(0, 256, (6, 4, 2, 3), dtype=np.uint8)
    tracklets = Tracklets(frames, np.array([0, 2, 6]), np.zeros(2, np.int64))
    others = [
        replace(tracklets, frames=frames ^ np.eye(6, dtype=np.uint8)[0, :, None, None, None]),
        replace(tracklets, frames=frames.reshape(6, 2, 4, 3)),
        replace(tracklets, starts=np.array([0, 3, 6])),
        tracklets.take(np.array([1, 0])),
    ]
    assert len({fingerprint(each) for each in (tracklets, *others)}) == 5
    assert fingerprint(replace(tracklets, frames=frames.copy())) == fingerprint(tracklets)


def test_a_tracklet_of_mars_that_goes_from_camera_to_camera_is_refused(tmp_path):
    info = draw_mars(tmp_path / "MARS") / "info"
    savemat(info / "tracks_test_info.mat", {"track_test_info": np.array([[5, 8, 2, 1]])})
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([[1]])})
    with pytest.raises(DatasetError, match="lines 5 to 8 are not one person in one camera"):
        load_dataset("mars", root=tmp_path)


def test_of_a_folder_that_has_some_parts_the_missing_one_is_named(tmp_path):
    (tmp_path / "bounding_box_train").mkdir()
    (tmp_path / "bounding_box_test").mkdir()
    with pytest.raises(DatasetError, match="has bounding_box_train, bounding_box_test, but no query; unpack"):
        load_dataset("market1501", root=tmp_path)
