"""MARS: ``bbox_train`` and ``bbox_test/PPPP/PPPPCXTTTTTFFFF.jpg``, with index files in ``info`` that define tracklets.

Pid -1 (folder ``00-1``) is junk and is left out; pid 0 is a distractor and stays. The queries are tracklets of
bbox_test and stay in the gallery, as in MARS's own program and in the counts of both papers: evaluation skips the query
itself, and the person's other queries count as matches. (torchreid removes them, which leaves 140 queries without a
match.)
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reprolib.datasets.archives import DatasetError
from reprolib.datasets.folders import Samples, image_files, labelled, make_split, subfolders
from reprolib.datasets.split import Split

NAME = re.compile(r"(?:00-1|\d{4})C[1-6]T\d{4}F\d{3,}\.jpg")
REMEDY = "download the folder info from https://github.com/liangzheng06/MARS-evaluation"


def read(folder: Path, problems: list[str]) -> Split:
    """Read the dataset in ``folder``; problems are added to ``problems``.

    Raises:
        DatasetError: the index files are missing, damaged or inconsistent.
    """
    info = folder / "info"
    train = _matrix(info / "tracks_train_info.mat", "track_train_info", (-1, 4))
    test = _matrix(info / "tracks_test_info.mat", "track_test_info", (-1, 4))
    query_rows = _matrix(info / "query_IDX.mat", "query_IDX", (-1,)) - 1
    is_query = np.isin(np.arange(len(test)), query_rows)
    if is_query.sum() != len(query_rows):
        raise DatasetError(f"{info / 'query_IDX.mat'}: names tracklets that tracks_test_info.mat lacks; {REMEDY}")
    train_frames = _frames(info / "train_name.txt", folder / "bbox_train", problems)
    test_frames = _frames(info / "test_name.txt", folder / "bbox_test", problems)
    return make_split(
        "mars",
        train=labelled(_samples(train, train_frames)),
        query=labelled(_samples(test[is_query], test_frames)),
        gallery=labelled(_samples(test, test_frames)),
    )


def _matrix(file: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
    from scipy.io import loadmat  # only this dataset needs it

    try:
        return loadmat(file)[key].astype(np.int64).reshape(shape)
    except Exception as error:  # the exception's type depends on how the file is damaged
        raise DatasetError(f"{file}: cannot be read ({error!r}); {REMEDY}") from error


class _Frames(NamedTuple):
    index: Path
    names: list[str]  # in the order of the index
    files: dict[str, Path]  # by name


def _frames(index: Path, folder: Path, problems: list[str]) -> _Frames:
    """Return the frames named in ``index`` and the files of ``folder``; missing files are added to ``problems``."""
    try:
        names = index.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{index}: cannot be read ({error}); {REMEDY}") from error
    files = {}
    for person in subfolders(folder, problems):
        files.update((path.name, path) for path, _ in image_files(person, NAME, problems))
    missing = [name for name in names if name not in files and not name.startswith("00-1")]
    if files and missing:
        problems.append(
            f"{folder}: {len(missing):,} frames missing, first {missing[0]}; unpack {folder.name}.zip again"
        )
    return _Frames(index, names, files)


def _samples(tracks: np.ndarray, frames: _Frames) -> Samples:
    """Make the tracklets of ``tracks`` (n, 4): first and last frame (from 1), pid, camera (from 1); without junk."""
    samples = []
    for first, last, pid, camera in tracks[tracks[:, 2] != -1].tolist():
        names = frames.names[first - 1 : last]
        if not 1 <= first <= last <= len(frames.names) or len({name[:6] for name in names}) > 1:  # PPPPCX
            raise DatasetError(f"{frames.index}: lines {first} to {last} are not one person in one camera; {REMEDY}")
        if there := [frames.files[name] for name in names if name in frames.files]:
            samples.append((there, pid, camera - 1))
    return samples
