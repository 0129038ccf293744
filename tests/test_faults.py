"""Bad input, a line each: what is tried, and what is said of it before anything is trained."""

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_split
from PIL import Image
from safetensors.torch import save_file
from test_datasets import batches, draw, draw_dataset, write_batches

import reprolib
from reprolib import (
    BUC,
    Criterion,
    LookupTable,
    algorithm,
    audit,
    batch,
    load_dataset,
    merge_clusters,
    rank_gallery,
    repelled_loss,
    results,
    training,
)
from reprolib.datasets import Split, archives
from reprolib.extraction import extract
from reprolib.images import load_images
from reprolib.model import Model, load_backbone
from reprolib.recipe import SUPERVISED
from reprolib.record import RunRecord, load_record

SIZE = (32, 16)
NETWORK = {"backbone": "resnet18", "weights": "none", "image_size": SIZE, "device": "cpu"}
CPU = torch.device("cpu")
ROWS = torch.eye(4)


def run(split=None, **settings):
    reprolib.run(BUC, split or make_split(), **NETWORK | settings)


def photo(folder: Path, *, mode="RGB", kind="JPEG", size=SIZE) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(folder / "photo.jpg", kind)
    return folder / "photo.jpg"


def deep(folder: Path) -> Path:
    Image.fromarray(np.full(SIZE, 30_000, np.uint16)).save(folder / "photo.jpg", "PNG")
    return folder / "photo.jpg"


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def negative(a, b, distance):
    return -(a.mean(-2) * b.mean(-2)).sum(-1)


def undefined(a, b, distance):
    return (a.mean(-2) - b.mean(-2)).sum(-1) / 0 * 0


def merge(linkage):
    merge_clusters(torch.rand(4, 3), torch.arange(4), criterion=Criterion(linkage), merges_per_stage=1)


def of_train(**changes):
    split = make_split()
    return replace(split, train=replace(split.train, **changes))


def of_split(**changes):
    return replace(make_split(), **changes)


def held_out(*, camids=None, pids=None):
    gallery = make_split().gallery
    return replace(
        gallery,
        camids=gallery.camids if camids is None else np.full(len(gallery), camids),
        pids=gallery.pids if pids is None else np.full(len(gallery), pids),
    )


def fractions(split):
    return replace(split, train=replace(split.train, frames=split.train.frames.astype(np.float32) / 255))


def truncated(file: Path) -> Path:
    return written(file, file.read_bytes()[:-300])


def said_to_be(file: Path, width: int, height: int) -> Path:
    """A PNG whose header is edited to say that it is larger."""
    content = file.read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return written(file, content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def decode(file: Path):
    return load_images((file,), SIZE).pixels


def cached(folder: Path, content: bytes) -> Path:
    written(folder / "cache.sizes.npy", content)
    return written(folder / "cache.npy", content)


def market(folder: Path, *, query="0001_c1s1_001051_00.jpg", gallery="0001_c2s1_000301_00.jpg", train=()) -> Path:
    """The folder of a small Market-1501 of this query, this gallery and further training images."""
    place = draw_dataset("market1501", folder)
    for part, name in (("query", query), ("bounding_box_test", gallery)):
        for file in (place / part).iterdir():
            file.unlink()
        draw(place / part / name)
    for name in train:
        draw(place / "bounding_box_train" / name)
    return place


def looped(folder: Path, link: str) -> Path:
    """A small Market-1501 in which a file or folder is a link to itself."""
    path = market(folder) / link
    if path.exists():
        path.rename(folder / "away")
    path.symlink_to(path)
    return path


def load(folder: Path, name: str = "market1501"):
    with warnings.catch_warnings(action="ignore"):  # it is not the whole of the dataset
        return load_dataset(name, root=folder)


def tar(folder: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> Path:
    with tarfile.open(folder / "Market-1501.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, link, size
        file.addfile(member, io.BytesIO(bytes(size)))
    return folder


def packed(folder: Path, *names: str, content: bytes = b"", mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(folder / "Market-1501.zip", "w") as file:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.external_attr, member.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(member, content)
    return folder


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "escaped"),)


def evil_batches(folder: Path) -> Path:
    evil = batches() | {"data_batch_3": pickle.dumps({b"data": Evil(folder)}, protocol=2)}
    write_batches(folder / "cifar-10-python.tar.gz", evil)
    return folder


def evil_weights(folder: Path) -> Path:
    torch.save({"conv1.weight": Evil(folder)}, folder / "weights.pth")
    return folder / "weights.pth"


def weights(folder: Path, name: str, shape: tuple[int, ...]) -> Path:
    save_file({name: torch.zeros(shape)}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def record(change=lambda content: None) -> RunRecord:
    """Write a record, change its file, read it."""
    settings = {"dataset": "tiny", "identities": None, "recipe": {"name": "buc"}, "backbone": "resnet18"}
    whole = RunRecord(settings | {"image_size": [32, 16], "seed": 0}, {}, {}, [{"metrics": {"rank-1": 0.5}}], 0)
    file = whole.save()
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return load_record(file)


def model() -> Model:
    return Model(BUC, backbone="resnet18", weights="none")


def train(network: Model, *, samples: int = 48):
    split = make_split()
    return training.train_stage(
        network, load_images(split.train.frames, SIZE), split.train.starts[: samples + 1], torch.arange(samples),
        LookupTable(samples, 2048), recipe=BUC, image_size=SIZE, learning_rates=[0.1], seed=0, device=CPU,
    )  # fmt: skip


def train_on_nan():
    network = model()
    torch.nn.init.constant_(network.head[0].weight, float("nan"))
    train(network)


def with_room_for(images: int, function, patch: pytest.MonkeyPatch):
    """Call it on a device whose memory is full when a forward pass has more than so many images."""
    pool = Model.pool

    def limited(self, frames):
        if len(frames) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pool(self, frames)

    patch.setattr(Model, "pool", limited)
    return function()


def features():
    split = make_split()
    return extract(
        model().eval(), load_images(split.train.frames, SIZE), split.train.starts, image_size=SIZE, device=CPU
    )


def with_gpus(count: int, device: str, patch: pytest.MonkeyPatch):
    patch.setattr(torch.cuda, "device_count", lambda: count)
    run(device=device)


def few_members(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.setattr(archives, "MAX_MEMBERS", 5)
    return packed(folder, *(f"query/{k}.jpg" for k in range(6)))


OTHER = "0002_c1s1_000999_00.jpg"
LATIN_1 = os.fsdecode("0002_c1s1_000451_03é.jpg".encode("latin-1"))
FAULTS = [  # what is tried, on an empty folder f and with a monkeypatch p; what it does; what is said
    # Images
    (
        "an array of fractions",
        lambda f, p: run(fractions(make_split())),
        r"frames must be \(n, h, w, 3\) uint8, .* not float32 of shape \(48, 32, 16, 3\)",
    ),
    ("a truncated JPEG", lambda f, p: decode(truncated(photo(f))), r"photo\.jpg: not a readable .*truncated.*restore"),
    ("a JPEG of no bytes", lambda f, p: decode(written(f / "photo.jpg", b"")), r"photo\.jpg: not a readable .*restore"),
    ("a page named .jpg", lambda f, p: decode(written(f / "photo.jpg", b"<html>")), r"photo\.jpg: not a .*restore it"),
    (
        "16 bits of gray",
        lambda f, p: decode(deep(f)),
        r"photo\.jpg: not a readable image \(mode I;16 has more than 8 bits per channel; save",
    ),
    (
        "1x1 pixels",
        lambda f, p: decode(photo(f, size=(1, 1))),
        r"photo\.jpg: .*1x1 pixels, the minimum is 8x8.*restore it",
    ),
    (
        "20,000x20,000 pixels",
        lambda f, p: decode(said_to_be(photo(f, kind="PNG"), 20_000, 20_000)),
        r"photo\.jpg: not a readable image .*400000000 pixels.*restore it",
    ),
    (
        "a damaged cache",
        lambda f, p: load_images((photo(f),), SIZE, cache=cached(f, b"no array")),
        r"cache\.npy: .*delete it and cache\.sizes\.npy, they will be made again",
    ),
    (
        "an empty cache",
        lambda f, p: load_images((photo(f),), SIZE, cache=cached(f, b"")),
        r"cache\.npy: .*delete it and cache\.sizes\.npy, they will be made again",
    ),
    # Datasets
    (
        "an image that is a link to itself",
        lambda f, p: load(looped(f, f"query/{OTHER}").parent.parent),
        rf"{OTHER}: empty .*extract it",
    ),
    ("a folder that is a link to itself", lambda f, p: load(looped(f, "query").parent), r"query: missing; unpack"),
    (
        "a root that is a link to itself",
        lambda f, p: load(looped(f, "loop")),
        "loop: no such folder",
    ),
    ("a name in another encoding", lambda f, p: load(market(f, train=[LATIN_1])), r"03\\xe9\.jpg: this .*; move it"),
    (
        "no query that counts",
        lambda f, p: run(load(market(f, query="-1_c1s1_000401_03.jpg"))),
        "no usable query images.*unpack",
    ),
    (
        "a split without a gallery",
        lambda f, p: run(replace(make_split(), gallery=make_split().gallery.take([]))),
        "no usable gallery images; add some, or unpack",
    ),
    (
        "an identity in training and test",
        lambda f, p: run(load(market(f, train=["0001_c1s1_000451_03.jpg"]))),
        "market1501 cannot be used as it is:\n  1 identities are in training and in test, first 1; remove them",
    ),
    (
        "one camera only",
        lambda f, p: run(load(market(f, gallery="0001_c1s1_000301_00.jpg"))),
        r"no query image has a match from another camera \(all cameras there: \[0\]\); add",
    ),
    (
        "a validation set of one camera",
        lambda f, p: run(of_split(validation=held_out(camids=0))),
        r"no validation image has a match from another camera \(all cameras there: \[0\]\); add",
    ),
    (
        "a validation set of training identities",
        lambda f, p: run(of_split(validation=held_out(pids=0))),
        "1 identities are in training and in validation, first 0; remove them",
    ),
    ("no identities", lambda f, p: run(identities=0), "identities=0: tiny has 12 training identities"),
    (
        "more identities than there are",
        lambda f, p: run(identities=13),
        "identities=13: tiny has 12 training identities",
    ),
    # Archives
    ("an absolute path", lambda f, p: load(tar(f, f"{f}/escaped")), r"Market-1501\.tar\.gz: refused.*download it from"),
    (
        "a path that leads out",
        lambda f, p: load(tar(f, "../escaped")),
        r"tar\.gz: refused, because '\.\./escaped' is a link or",
    ),
    (
        "a path out by a way round",
        lambda f, p: load(tar(f, "query/../../escaped")),
        r"tar\.gz: refused.*download it from",
    ),
    ("a path out on Windows", lambda f, p: load(tar(f, "..\\escaped")), r"tar\.gz: refused.*download it from"),
    ("a path with a drive", lambda f, p: load(tar(f, "C:\\escaped")), r"tar\.gz: refused.*download it from"),
    ("a link", lambda f, p: load(tar(f, "query", tarfile.SYMTYPE, "/etc")), r"tar\.gz: refused.*download it from"),
    (
        "a hard link",
        lambda f, p: load(tar(f, "query", tarfile.LNKTYPE, "../escaped")),
        r"tar\.gz: refused.*download it",
    ),
    ("a pipe", lambda f, p: load(tar(f, "query", tarfile.FIFOTYPE)), r"tar\.gz: refused.*download it from"),
    ("a device file", lambda f, p: load(tar(f, "query", tarfile.CHRTYPE)), r"tar\.gz: refused.*download it from"),
    (
        "a zip's path that leads out",
        lambda f, p: load(packed(f, "../escaped")),
        r"Market-1501\.zip: refused.*download it",
    ),
    ("a zip's absolute path", lambda f, p: load(packed(f, f"{f}/escaped")), r"Market-1501\.zip: refused.*download it"),
    ("a zip's link", lambda f, p: load(packed(f, "l", content=b"/etc", mode=0o120777)), r"\.zip: refused.*download it"),
    (
        "a bomb",
        lambda f, p: load(packed(f, f"query/{OTHER}", content=bytes(10**7))),
        r"\.zip: refused.*bytes; check where",
    ),
    ("a tar's bomb", lambda f, p: load(tar(f, f"query/{OTHER}", size=10**7)), r"tar\.gz: refused.*bytes; check where"),
    (
        "more files than any dataset",
        lambda f, p: load(few_members(f, p)),
        r"\.zip: refused.*more than 5 files.*check where",
    ),
    (
        "a batch that runs code",
        lambda f, p: load(evil_batches(f), "cifar10"),
        r"data_batch_3.*call \w+\.mkdir\); download",
    ),
    # Weights
    (
        "weights that run code",
        lambda f, p: load_backbone("resnet18", evil_weights(f)),
        r"weights\.pth: refused.*use a state",
    ),
    (
        "weights that are not there",
        lambda f, p: load_backbone("resnet18", f / "w.pth"),
        r"w\.pth: no such weights; use",
    ),
    (
        "weights of another backbone",
        lambda f, p: load_backbone("resnet18", weights(f, "features.0.0.weight", (32, 3, 3, 3))),
        r"weights\.safetensors: not weights of resnet18; .* name the backbone of this file: 100 missing .*, 1 unknown",
    ),
    (
        "weights of another shape",
        lambda f, p: load_backbone("resnet18", weights(f, "conv1.weight", (8, 3, 3, 3))),
        r"weights\.safetensors: not weights of resnet18; use a file of that .*size mismatch",
    ),
    *(
        (
            f"weights cut off, {ending}",
            lambda f, p, ending=ending: load_backbone("resnet18", written(f / f"w{ending}", b"PK\3\4 and no more")),
            rf"w\{ending}: not weights of resnet18; use a file|w\{ending}: refused",
        )
        for ending in (".pth", ".safetensors")
    ),
    (
        "an unknown backbone",
        lambda f, p: load_backbone("resnet19", "none"),
        "'resnet19' is not one of resnet50, resnet18",
    ),
    # Splits of one's own
    (
        "cameras of one too few",
        lambda f, p: of_train(camids=[0] * 47),
        r"camids has shape \(47,\) for the 48 tracklets",
    ),
    ("cameras that are names", lambda f, p: of_train(camids=["a"] * 48), "camids must contain integers, not <U1"),
    (
        "tracklets of no frame",
        lambda f, p: of_train(starts=[0, *range(48)]),
        "starts must hold the first frame of each tracklet",
    ),
    (
        "frames beyond the end",
        lambda f, p: of_train(starts=range(1, 50)),
        "starts must hold .* in increasing order from 0",
    ),
    (
        "starts of one too few",
        lambda f, p: of_train(starts=range(48), camids=[0] * 47),
        "starts ends at 47, .* 48 frames",
    ),
    (
        "images in a list",
        lambda f, p: of_train(frames=[np.zeros((32, 16, 3))] * 48),
        "frames must be a list of names of image files",
    ),
    ("identities of one too few", lambda f, p: of_split(train_pids=[0] * 47), r"train_pids has shape \(47,\) for 48"),
    (
        "a name where a list is due",
        lambda f, p: of_train(frames="photo.jpg"),
        "frames must be a list of names of image",
    ),
    ("no tracklet's start", lambda f, p: of_train(starts=[]), r"starts has shape \(0,\); pass \(n \+ 1,\)"),
    ("a start alone", lambda f, p: of_train(starts=0), r"starts has shape \(\); pass"),
    ("a number for a name", lambda f, p: of_split(name=5), "name 5 is used in file names"),
    (
        "identities to draw of nobody",
        lambda f, p: run(of_split(train_pids=None), identities=5),
        "the training identities of tiny are not all known",
    ),
    ("a query alone", lambda f, p: run(of_split(gallery=None)), "no gallery; pass both query and gallery, or neither"),
    ("a stage by no test", lambda f, p: run(of_split(query=None, gallery=None)), "'test' needs a query and a gallery"),
    (
        "identities that nobody knows, to train on",
        lambda f, p: reprolib.run(SUPERVISED, of_split(train_pids=None), **NETWORK),
        "supervised trains on identities, but not all identities of tiny are known",
    ),
    (
        "a name that is a path",
        lambda f, p: of_split(name="../x"),
        r"name '\.\./x' is used in file names; use only letters",
    ),
    (
        "a file that is gone",
        lambda f, p: run(of_train(frames=[f / "x.jpg"] * 48)),
        r"x\.jpg: cannot be read \(No such file",
    ),
    ("files as a training set", lambda f, p: Split("photos", ["a.jpg"]), r"train is a list; pass Tracklets\("),
    (
        "a query without identities",
        lambda f, p: of_split(query=make_split().train),
        r"query is a Tracklets; pass LabelledTracklets\(",
    ),
    (
        "a share of merges",
        lambda f, p: merge_clusters(ROWS, torch.arange(4), criterion=Criterion(), merges_per_stage=0.05),
        "merges_per_stage=0.05 must be a number of merges",
    ),
    (
        "a recipe as a criterion",
        lambda f, p: merge_clusters(ROWS, torch.arange(4), criterion=BUC, merges_per_stage=1),
        r"a Recipe is no Criterion; pass .* or BUC\.criterion",
    ),
    (
        "labels beyond the images",
        lambda f, p: merge_clusters(ROWS, torch.arange(4) * 9, criterion=Criterion(), merges_per_stage=1),
        "only 0 to 3; renumber them",
    ),
    (
        "single images for tracklets",
        lambda f, p: model()(torch.zeros(2, 3, *SIZE)),
        r"images must be \(B, T, 3, H, W\), normalized, not \(2, 3, 32, 16\)",
    ),
    (
        "labels in an array",
        lambda f, p: repelled_loss(ROWS, np.arange(4), LookupTable(4, 4), temperature=0.1),
        "pseudo_labels must be a tensor of torch.int64, not ndarray",
    ),
    (
        "features whose distances overflow",
        lambda f, p: merge_clusters(ROWS + 1e20, torch.arange(4), criterion=Criterion(), merges_per_stage=1),
        r"features must be finite and below 1e\+15",
    ),
    (
        "identities in words",
        lambda f, p: rank_gallery(
            ROWS, ROWS, query_pids=["a"] * 4, gallery_pids=[1] * 4, query_camids=[0] * 4, gallery_camids=[1] * 4
        ),
        "query_pids must be 4 integers, not <U1 of shape",
    ),
    (
        "an embedding of another precision",
        lambda f, p: repelled_loss(ROWS.double(), torch.arange(4), LookupTable(4, 4), temperature=0.1),
        "embedding is torch.float64, but the table torch.float32; convert",
    ),
    ("a recipe's name for a record", lambda f, p: results.load_or_run(["buc"], dataset="synthetic"), "list of recipes"),
    (
        "a number of seeds",
        lambda f, p: results.load_or_run([BUC], dataset="synthetic", seeds=3),
        r"such as \[0, 1, 2\]",
    ),
    ("a record of no dataset", lambda f, p: results.load_or_run([BUC], dataset="market"), "'market' is not one of"),
    ("no recipe", lambda f, p: reprolib.run("buc", make_split()), "'buc' is not a Recipe; pass reprolib"),
    ("no side", lambda f, p: run(image_size=()), r"image_size=\(\) must be \(height, width\)"),
    ("one side", lambda f, p: run(image_size=64), r"image_size=64 must be \(height, width\), each at least 8 pixels"),
    ("a size in words", lambda f, p: run(image_size="64x32"), r"image_size='64x32' must be \(height, width\)"),
    (
        "a size that shows nobody",
        lambda f, p: run(image_size=(4, 4)),
        r"image_size=\(4, 4\) must be .* at least 8 pixels",
    ),
    (
        "a folder that is a file",
        lambda f, p: load(photo(f)),
        r"photo\.jpg: not a folder; set --data-root or REPROLIB_DATA",
    ),
    # Recipes
    (
        "a word for a switch",
        lambda f, p: replace(BUC, normalize_table="no"),
        "normalize_table='no' must be of type bool",
    ),
    ("a whole criterion", lambda f, p: BUC.changed(criterion=None), r"replace\(recipe, criterion=\.\.\.\)"),
    ("half a sample", lambda f, p: replace(BUC, batch_size=16.5), r"batch_size=16\.5 must be of type int"),
    (
        "a rate below 0",
        lambda f, p: replace(BUC, learning_rate=-1),
        "learning_rate=-1.0 must be finite and not negative",
    ),
    ("a criterion in words", lambda f, p: replace(BUC, criterion="minimum"), "criterion='minimum' must be a Criterion"),
    (
        "a recipe that is a path",
        lambda f, p: replace(BUC, name="a/b"),
        "name='a/b' is used in file names; use only letters",
    ),
    ("merge_percent 0", lambda f, p: replace(BUC, merge_percent=0), "merge_percent=0.0 must lie between 0 and 1"),
    ("merge_percent 1", lambda f, p: replace(BUC, merge_percent=1), "merge_percent=1.0 must lie between 0 and 1"),
    (
        "merge_percent below 0",
        lambda f, p: replace(BUC, merge_percent=-0.1),
        r"merge_percent=-0\.1 must lie between 0 and",
    ),
    ("merge_percent NaN", lambda f, p: replace(BUC, merge_percent=float("nan")), "merge_percent=nan must lie between"),
    ("a batch of one", lambda f, p: replace(BUC, batch_size=1), "batch_size=1 must be at least 2"),
    ("a head of no layer", lambda f, p: replace(BUC, embedding_layers=0), "embedding_layers=0 must be at least 1"),
    ("dropout of all", lambda f, p: replace(BUC, dropout=1.0), r"dropout=1\.0 must be at least 0 and less than 1"),
    ("merging from identities", lambda f, p: replace(BUC, start="identities"), "nothing to merge; use criterion=None"),
    (
        "a linkage without a name",
        lambda f, p: Criterion(lambda a, b, d: a),
        "a record identifies a linkage by its name",
    ),
    ("a linkage below 0", lambda f, p: merge(negative), "linkage negative must return finite values that are not"),
    (
        "a linkage that is NaN",
        lambda f, p: merge(undefined),
        "linkage undefined must return finite values that are not",
    ),
    ("junk in a Split", lambda f, p: reprolib.run(audit.with_junk(BUC), make_split()), "a Split is used as it is"),
    ("a Split to be sorted", lambda f, p: reprolib.run(audit.in_order(BUC), make_split()), "a Split is used as it is"),
    ("a temperature of 0", lambda f, p: replace(BUC, temperature=0), "temperature=0.0 must be positive"),
    ("a temperature NaN", lambda f, p: replace(BUC, temperature=float("nan")), "temperature=nan must be positive and"),
    ("λ NaN", lambda f, p: Criterion(regularizer_weight=float("nan")), "regularizer_weight=nan must be finite and not"),
    (
        "λ below 0",
        lambda f, p: Criterion(regularizer_weight=-1),
        "regularizer_weight=-1.0 must be finite and not negative",
    ),
    ("an unknown linkage", lambda f, p: Criterion(linkage="ward"), "'ward' is not one of 'minimum', 'maximum'"),
    (
        "fewer samples than a batch, before any is decoded",
        lambda f, p: run(samples=4),
        "4 training samples are fewer than",
    ),
    (
        "an unknown backbone",
        lambda f, p: run(backbone="resnet5"),
        "backbone 'resnet5' is not one of resnet50, resnet18",
    ),
    # Training
    (
        "fewer samples than a batch",
        lambda f, p: train(model(), samples=4),
        "4 training samples are fewer than one batch",
    ),
    (
        "a loss that is NaN",
        lambda f, p: train_on_nan(),
        r"the loss is nan in epoch 0 with learning_rate=0\.1; use a lower",
    ),
    # Devices
    ("an unknown device", lambda f, p: run(device="abacus"), "device 'abacus' is unknown; use cpu, cuda or cuda:N"),
    ("a device without memory", lambda f, p: run(device="meta"), "device 'meta' is unknown; use cpu, cuda or cuda:N"),
    (
        "CUDA where there is none",
        lambda f, p: with_gpus(0, "cuda", p),
        "device 'cuda': this machine has 0 CUDA devices; use cpu",
    ),
    (
        "the second of one",
        lambda f, p: with_gpus(1, "cuda:1", p),
        "device 'cuda:1': this machine has 1 CUDA devices; use cpu or",
    ),
    (
        "a batch that the device has no room for",
        lambda f, p: with_room_for(5, lambda: train(model()), p),
        "out of memory on cpu with batch_size=16: 4 would fit; use a recipe with a smaller batch_size",
    ),
    (
        "two samples that the device has no room for",
        lambda f, p: with_room_for(1, lambda: train(model()), p),
        "out of memory on cpu with batch_size=16: none would fit; use .* a smaller image_size",
    ),
    (
        "one image that the device has no room for",
        lambda f, p: with_room_for(0, features, p),
        "out of memory on cpu with one image of 32x16; use a smaller image_size",
    ),
    # Records and notebooks
    (
        "another version's record",
        lambda f, p: record(lambda c: c.update(format=2)),
        r"tiny_.*\.json: .*version.*delete it",
    ),
    (
        "an edited record",
        lambda f, p: record(lambda c: c.update(selected=1)),
        r"tiny_.*\.json: edited .*checksum.*restore",
    ),
    (
        "a number edited",
        lambda f, p: record(lambda c: c["stages"][0]["metrics"].update({"rank-1": 0.6})),
        r"json: edited",
    ),
    (
        "a record without checksum",
        lambda f, p: record(lambda c: c.pop("checksum")),
        r"json: .*'checksum' is missing; .*delete",
    ),
    (
        "a half-written record",
        lambda f, p: load_record(written(f / "r.json", b'{"form')),
        r"r\.json: not a run .*delete",
    ),
    ("a record that is a folder", lambda f, p: load_record(f), "no such file; use a record"),
    ("an unknown notebook", lambda f, p: batch.select(["77"]), r"begins with \['77'\]; choose from 00_tour"),
    (
        "a notebook's unknown parameter",
        lambda f, p: batch.reproduce(batch.select(["00"]), {"sedes": "[0]"}),
        r"unknown parameters \['sedes'\]; use .*seeds",
    ),
]


@pytest.mark.usefixtures("tiny_network", "results_folder")
@pytest.mark.parametrize(("attempt", "message"), [pytest.param(*line[1:], id=line[0]) for line in FAULTS])
def test_bad_input_is_answered_by_what_is_wrong_and_what_to_do(tmp_path, monkeypatch, attempt, message):
    monkeypatch.setattr(algorithm, "train_stage", lambda *a, **k: pytest.fail("it was trained on"))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        attempt(folder, monkeypatch)
    assert error.type is not UnicodeDecodeError
    there = {file.name for file in tmp_path.rglob("*")}
    assert not {name for name in there if name == "escaped" or name.endswith(".partial") or name.startswith(".")}


@pytest.mark.parametrize(
    "options", [{"kind": "PNG"}, {"mode": "CMYK"}, {"mode": "L"}, {"mode": "L", "kind": "PNG"}], ids=str
)
def test_other_kinds_of_image_named_jpg_are_taken_as_three_colors(tmp_path, options):
    file = photo(tmp_path, **options)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(file)[0], expected)


def test_an_image_whose_name_is_in_another_encoding_is_read(tmp_path):
    folder = draw_dataset("cifar10", tmp_path)
    draw(folder / "train" / "ship" / LATIN_1)
    split = load(tmp_path, "cifar10")
    assert len(split.train) == 5
    assert decode(split.train.frames[0]).shape == (1, 16, 8, 3)
    assert reprolib.datasets.fingerprint(split.train)


def test_extraction_halves_its_batch_until_it_fits(tiny_network, monkeypatch):
    torch.manual_seed(0)
    expected = features()
    torch.manual_seed(0)
    torch.testing.assert_close(with_room_for(5, features, monkeypatch), expected, atol=1e-6, rtol=1e-5)
