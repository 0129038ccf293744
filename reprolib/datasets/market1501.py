"""Market-1501: ``{bounding_box_train,query,bounding_box_test}/PPPP_cXsY_FFFFFF_NN.jpg``.

Pid -1 is junk, a box too loose to judge, and is left out. Pid 0 is a distractor, a false alarm of the detector, and
stays in the gallery. A few file names of the original release end in ``.jpg.jpg``.
"""

import re
from dataclasses import replace
from pathlib import Path

from reprolib.datasets.folders import image_files, image_split, labelled
from reprolib.datasets.split import Split

NAME = re.compile(r"(-1|\d{4})_c([1-6])s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?")


def read(folder: Path, problems: list[str]) -> Split:
    """Read the dataset in ``folder``; problems are added to ``problems``."""
    return image_split("market1501", folder, NAME, problems)


def with_junk(split: Split, folder: Path) -> Split:
    """Return the dataset that was read from ``folder`` with the junk (pid -1) kept in the gallery."""
    files = image_files(folder / "bounding_box_test", NAME, problems=[])
    return replace(split, gallery=labelled([((path,), int(match[1]), int(match[2]) - 1) for path, match in files]))
