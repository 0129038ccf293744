"""DukeMTMC-VideoReID: ``{train,query,gallery}/PPPP/TTTT/PPPP_CX_FFFFF_XFFFFFF.jpg``, one folder per tracklet.

Older copies have file names without underscores. The published gallery also contains the query tracklets; evaluation
skips them, like every tracklet with the query's pid and camera.
"""

import re
from pathlib import Path

from reprolib.datasets.folders import Samples, image_files, labelled, make_split, subfolders
from reprolib.datasets.split import Split

NAME = re.compile(r"(\d{4})_?C([1-8])_?F\d{4,}_?X\d+\.jpg")


def read(folder: Path, problems: list[str]) -> Split:
    """Read the dataset in ``folder``; problems are added to ``problems``."""
    sets = {part: labelled(_samples(folder / part, problems)) for part in ("train", "query", "gallery")}
    return make_split("dukemtmc-videoreid", **sets)


def _samples(folder: Path, problems: list[str]) -> Samples:
    samples = []
    for person in subfolders(folder, problems):
        for tracklet in subfolders(person, problems):
            files = image_files(tracklet, NAME, problems)
            if not files:
                continue
            seen = {(match[1], match[2]) for _, match in files}
            pid, camera = seen.pop()
            if seen or pid != person.name:
                problems.append(f"{tracklet}: frames of another person or camera; unpack the dataset's archive again")
            samples.append(([path for path, _ in files], int(pid), int(camera) - 1))
    return samples
