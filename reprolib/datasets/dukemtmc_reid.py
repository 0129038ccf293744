"""DukeMTMC-reID: ``{bounding_box_train,query,bounding_box_test}/PPPP_cX_fFFFFFFF.jpg``. No junk, no pid 0."""

import re
from pathlib import Path

from reprolib.datasets.folders import image_split
from reprolib.datasets.split import Split

NAME = re.compile(r"(\d{4})_c([1-8])_f\d{7}\.jpg(?:\.jpg)?")


def read(folder: Path, problems: list[str]) -> Split:
    """Read the dataset in ``folder``; problems are added to ``problems``."""
    return image_split("dukemtmc-reid", folder, NAME, problems)
