"""Absolute paths of all folders, so that no notebook depends on its working directory."""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
# A package installed without its repository keeps its files in the working directory.
ROOT = SOURCE if (SOURCE / "pyproject.toml").is_file() else Path.cwd()
NO_CHECKOUT = "they are in the repository; clone it, and there: pip install --editable ."
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
STORED = ROOT / "results"  # the results in the repository
RESULTS = Path(os.environ.get("REPROLIB_RESULTS") or STORED).expanduser().resolve()  # read once, at import
RUNS = RESULTS / "runs"  # one JSON record per run; committed
STORED_RUNS = STORED / "runs"
STORED_UNFINISHED = STORED / "unfinished"  # partial records of interrupted runs; committed
BENCH = RESULTS / "bench"  # measurements of make bench, one JSON file per machine; committed
STORED_BENCH = STORED / "bench"
STATE = RESULTS / "state"  # weights and labels after every stage; not committed
LABELS = RESULTS / "labels"  # pseudo-labels of every stage of a run; committed
MAPS = RESULTS / "maps"  # t-SNE of the training features at the kept stage of a run; committed
STORED_MAPS = STORED / "maps"
DATASETS = RESULTS / "datasets"  # counts, one JSON file per dataset; committed
STORED_DATASETS = STORED / "datasets"
CACHE = Path(os.environ.get("REPROLIB_CACHE") or DATA / "cache").expanduser().resolve()  # images, pretrained weights
FIGURES = RESULTS / "figures"
TABLES = RESULTS / "tables"  # the tables in the notebooks, one CSV file each; committed
REPORT = STORED / "report"  # the HTML report; not committed
STORED_VERDICTS = STORED / "verdicts"
VERDICTS = RESULTS / "verdicts"  # verdicts of the notebooks, one JSON file per claim


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder that holds the datasets: ``root`` if given, else ``$REPROLIB_DATA``, else ``data/``."""
    folder = os.path.expanduser(root or os.environ.get("REPROLIB_DATA") or DATA)
    return Path(os.path.realpath(folder))  # unlike Path.resolve() of older Pythons, no error for circular links
