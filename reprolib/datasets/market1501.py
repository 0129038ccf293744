"""Market-1501: ``{bounding_box_train,query,bounding_box_test}/PPPP_cXsY_FFFFFF_NN.jpg``.

Pid -1 is junk, a box too loose to judge, and is left out; pid 0 is a distractor, a false alarm of the detector, and
stays in the gallery. A few names of the original release end in ``.jpg.jpg``.
"""

import re
from pathlib import Path

from reprolib.datasets.folders import image_split
from reprolib.datasets.split import Split

NAME = re.compile(r"(-1|\d{4})_c([1-6])s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?")


def read(folder: Path, problems: list[str]) -> Split:
    """The dataset in ``folder``; what is wrong with it is added to ``problems``."""
    return image_split("market1501", folder, NAME, problems)
