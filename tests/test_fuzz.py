"""What nobody thought of: file names, records and labels drawn at random are taken, or refused by a message."""

import json
import os
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from test_datasets import draw_mars
from test_faults import record

from reprolib import Criterion, load_dataset, merge_clusters
from reprolib.datasets import DatasetError, dukemtmc_reid, dukemtmc_videoreid, fingerprint, market1501
from reprolib.record import RecordError, load_record

steady = settings(derandomize=True, deadline=None, max_examples=100)  # the same examples on every machine

PARTS = {  # folders of a dataset's images, and the names that it reads
    "market1501": (("bounding_box_train", "query", "bounding_box_test"), market1501.NAME),
    "dukemtmc-reid": (("bounding_box_train", "query", "bounding_box_test"), dukemtmc_reid.NAME),
    "dukemtmc-videoreid": (("train/0001/0001", "query/0001/0001", "gallery/0001/0001"), dukemtmc_videoreid.NAME),
    "cifar10": (("train/ship", "test/ship"), None),
}
any_name = st.binary(min_size=1, max_size=40).filter(lambda b: not {0, 47} & set(b) and b.strip(b".")).map(os.fsdecode)


@st.composite
def trees(draw) -> tuple[str, dict[str, list[str]]]:
    """A dataset's name, and the names of the files in each of its folders: such as it reads, and any others."""
    dataset = draw(st.sampled_from(sorted(PARTS)))
    parts, pattern = PARTS[dataset]
    known = st.from_regex(pattern, fullmatch=True) if pattern else st.sampled_from(["1.jpg", "2.png", "é.JPEG"])
    names = st.lists(known.filter(lambda name: len(os.fsencode(name)) < 200) | any_name, min_size=1, max_size=3)
    return dataset, {part: draw(names) for part in parts}


def attempt(error: type[ValueError], function):
    """What it returns and what it says: one of the two is None."""
    try:
        return function(), None
    except error as refusal:
        return None, str(refusal)


@steady
@given(trees())
def test_any_file_name_is_read_or_named(tree):
    dataset, parts = tree
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings(action="ignore"):
        for part, names in parts.items():
            Path(root, part).mkdir(parents=True)
            for name in names:
                Path(root, part, name).write_bytes(b"x")
        split, refusal = attempt(DatasetError, lambda: load_dataset(dataset, root=root))
        assert split or root.encode() in refusal.encode()  # it can be printed
        for tracklets in (split.query, split.gallery) if split else ():
            assert (tracklets.pids >= 0).all()
            assert (tracklets.camids >= 0).all()
            assert len(tracklets.starts) == len(tracklets) + 1
            assert fingerprint(tracklets)


@pytest.fixture(scope="module")
def mars(tmp_path_factory):
    return draw_mars(tmp_path_factory.mktemp("data") / "MARS")


numbers = st.integers(-3, 8) | st.integers(-(2**31), 2**31 - 1)


@steady
@given(data=st.data())
def test_any_index_of_mars_is_read_or_named(mars, data):
    for part in ("train", "test"):
        known = [file.name for file in sorted((mars / f"bbox_{part}").rglob("*.jpg"))]
        names = data.draw(st.lists(st.sampled_from(known) | any_name, max_size=6))
        (mars / "info" / f"{part}_name.txt").write_bytes(b"\n".join(map(os.fsencode, names)))
        rows = data.draw(st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=4))
        savemat(mars / "info" / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows)})
    savemat(mars / "info" / "query_IDX.mat", {"query_IDX": np.array([data.draw(st.lists(numbers, max_size=3))])})
    with warnings.catch_warnings(action="ignore"):
        split, refusal = attempt(DatasetError, lambda: load_dataset("mars", root=mars.parent))
    assert split or str(mars) in refusal


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A record, and the bytes of its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reprolib.paths.RUNS", tmp_path_factory.mktemp("runs"))
        content = record()
        return content, content.save().read_bytes()


@steady
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 30), st.binary(max_size=4)), min_size=1, max_size=3))
def test_a_record_edited_anywhere_is_refused_or_says_the_same(whole, edits):
    expected, text = whole
    for start, length, replacement in edits:
        text = text[:start] + replacement + text[start + length :]
    assert read(text) in (None, asdict(expected))


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["format", "checksum", "settings", "provenance", "untrained", "stages", "selected", "other"])


@steady
@given(values | st.dictionaries(fields, values | st.just(1)))
def test_any_json_that_is_no_record_is_refused(content):
    assert read(json.dumps(content).encode()) is None


@pytest.mark.parametrize("text", [b"[" * 100_000, b"9" * 5_000, b'{"format": 1, "format": 1}', b"\xff", b"NaN"])
def test_text_that_upsets_a_parser_is_refused(text):
    assert read(text) is None


def read(text: bytes) -> dict | None:
    """What a file of this text holds, None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "record.json")
        file.write_bytes(text)
        content, refusal = attempt(RecordError, lambda: asdict(load_record(file)))
        assert content or str(file) in refusal
        return content


criteria = st.builds(
    Criterion,
    linkage=st.sampled_from(["minimum", "maximum", "centroid", "average"]),
    regularizer=st.sampled_from(["none", "size", "dispersion"]),
    regularizer_weight=st.sampled_from([0.0, 0.1]),
    ranking=st.sampled_from(["once", "each_merge"]),
)


@st.composite
def clusterings(draw) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Features, labels and how many merges: half of them such as merging takes."""
    n = draw(st.integers(0, 8))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    rows = draw(st.lists(st.lists(st.floats(-2, 2, width=16), min_size=3, max_size=3), min_size=n, max_size=n))
    features = torch.tensor(rows, dtype=dtype).reshape(n, 3)
    labels = torch.tensor(draw(st.permutations(range(n))), dtype=torch.int64) // draw(st.integers(1, 3))
    merges = draw(st.integers(1, max(1, int(labels.max()))) if n else st.just(1))
    match draw(st.sampled_from(range(16))):  # from 8 on: no fault
        case 0 | 1 as k if n:
            features[-1, 0] = (torch.nan, torch.inf)[k]
        case 2 | 3 | 4 as k if n:
            labels[0] = (-1, 2**62, n - 1)[k - 2]
        case 5:
            features = features.half()
        case 6:
            labels = draw(st.sampled_from([labels.int(), labels[1:], labels[:, None]]))
        case 7:
            merges = draw(st.integers(-1, 0) | st.integers(n, n + 2))
    return features, labels, merges


@steady
@given(clusterings(), criteria)
def test_any_features_and_labels_are_merged_as_asked_or_refused(clustering, criterion):
    features, labels, merges = clustering
    before = features.clone(), labels.clone()
    merged, refusal = attempt(
        ValueError, lambda: merge_clusters(features, labels, criterion=criterion, merges_per_stage=merges)
    )
    assert torch.equal(before[0].nan_to_num(), features.nan_to_num())
    assert torch.equal(before[1], labels)
    if refusal is None:
        assert merged.unique().tolist() == list(range(int(labels.max()) + 1 - merges))
        for cluster in labels.unique():  # a merge takes whole clusters
            assert len(merged[labels == cluster].unique()) == 1
