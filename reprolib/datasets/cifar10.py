"""CIFAR-10 (BUC Table 4): the published Python archive, its unpacked folder, or ``{train,test}/<class>/*.jpg|png``.

The training images are also the gallery, with their classes as pids: rank-1 is then the top-1 accuracy of the nearest
neighbor. Queries have camera 0 and the gallery has camera 1, so that evaluation does not skip any match.
"""

import _codecs
import io
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from reprolib.datasets.archives import DAMAGE, DatasetError, open_tar
from reprolib.datasets.folders import image_files, labelled, make_split, subfolders
from reprolib.datasets.split import LabelledTracklets, Split

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
MAX_BATCH_BYTES = 2**26  # a published batch has 31 MB
IMAGE = re.compile(r".+\.(?:jpe?g|png)", re.IGNORECASE)
REMEDY = "download cifar-10-python.tar.gz again from https://www.cs.toronto.edu/~kriz/cifar.html"
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {  # names in a pickled array: with numpy 1, with numpy 2, and (encode) from Python 3 with an old protocol
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs.encode,
}


def read(folder: Path, problems: list[str]) -> Split:
    """Read the dataset in ``folder``; the published pixels are preferred to class folders, which may be re-encoded.

    Problems with class folders are added to ``problems``.

    Raises:
        DatasetError: a published batch is damaged or missing, or would run code.
    """
    archive, unpacked = folder / "cifar-10-python.tar.gz", folder / "cifar-10-batches-py"
    if unpacked.is_dir():
        train, query = _pixels(_unpacked_batches(unpacked), unpacked)
    elif archive.is_file():
        train, query = _pixels(_archived_batches(archive), archive)
    else:
        train, query = _class_folders(folder, problems)
    lossy = not isinstance(train.frames, np.ndarray) and any(file.suffix.lower() != ".png" for file in train.frames)
    gallery = replace(train, camids=np.ones_like(train.camids))
    split = make_split("cifar10", train=train, query=query, gallery=gallery)
    return replace(split, gallery_is_train=True, images="JPEG" if lossy else "")


def _class_folders(folder: Path, problems: list[str]) -> list[LabelledTracklets]:
    sets, names = [], []
    for part in BATCHES:
        classes = subfolders(folder / part, problems)
        files = [image_files(each, IMAGE, problems) for each in classes]
        sets.append(labelled([((path,), pid, 0) for pid, found in enumerate(files) for path, _ in found]))
        names.append([each.name for each in classes])
    if names[0] != names[1]:
        problems.append(f"{folder}: train has the classes {names[0]}, test has {names[1]}; unpack the archive again")
    return sets


def _unpacked_batches(folder: Path) -> Iterator[tuple[str, bytes]]:
    try:
        for file in folder.iterdir():
            if file.is_file() and file.stat().st_size <= MAX_BATCH_BYTES:
                yield file.name, file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read ({error}); {REMEDY}") from error


def _archived_batches(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the archive, read into memory: since nothing is written to disk, paths need no check."""
    try:
        with open_tar(archive) as members:
            for member in members:
                if member.isfile() and member.size <= MAX_BATCH_BYTES:
                    yield PurePosixPath(member.name).name, members.extractfile(member).read()
    except DAMAGE as error:
        raise DatasetError(f"{archive}: cannot be read ({error}); {REMEDY}") from error


def _pixels(files: Iterator[tuple[str, bytes]], source: Path) -> list[LabelledTracklets]:
    """Return training and test images as (n, 32, 32, 3) uint8 arrays."""
    wanted = {name for names in BATCHES.values() for name in names}
    batches = {name: _batch(content, source / name) for name, content in files if name in wanted}
    if missing := sorted(wanted - batches.keys()):
        raise DatasetError(f"{source}: {', '.join(missing)} missing; {REMEDY}")
    sets = []
    for names in BATCHES.values():
        frames = np.concatenate([batches[name][0] for name in names])
        pids = np.concatenate([batches[name][1] for name in names])
        sets.append(LabelledTracklets(frames, np.arange(len(pids) + 1), np.zeros_like(pids), pids))
    return sets


def _batch(content: bytes, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, 32, 32, 3) uint8 images and (n,) int64 classes of one pickled batch."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        data, pids = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=np.int64)
        if data.dtype != np.uint8 or data.shape != (len(pids), 3072) or not np.isin(pids, range(10)).all():
            raise ValueError(f"holds {data.dtype} of shape {data.shape}, {len(pids)} labels")
    except Exception as error:  # a damaged pickle can fail in any way
        raise DatasetError(f"{source}: not a published batch ({error}); {REMEDY}") from error
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), pids


class _ArraysOnly(pickle.Unpickler):
    """Unpickler for dicts, lists, numbers, bytes and arrays; refuses to call anything else that a pickle names."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"refused, because it would call {module}.{name}")
        return _ALLOWED[module, name]
