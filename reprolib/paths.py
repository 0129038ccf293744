"""Absolute folders, so that no notebook depends on its working directory."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
STORED = ROOT / "results"  # what the repository comes with
RESULTS = Path(os.environ.get("REPROLIB_RESULTS") or STORED).expanduser().resolve()  # read once, at import
RUNS = RESULTS / "runs"  # one JSON record a run; committed
STORED_RUNS = STORED / "runs"
STORED_UNFINISHED = STORED / "unfinished"  # records of runs that were cut off, as far as they went; committed
STORED_LABELS = STORED / "labels"
BENCH = RESULTS / "bench"  # what make bench measured, one JSON a machine; committed
STORED_BENCH = STORED / "bench"
STATE = RESULTS / "state"  # weights and labels after every stage; not committed
LABELS = RESULTS / "labels"  # pseudo-labels of every stage of a run; committed
MAPS = RESULTS / "maps"  # t-SNE of the training features of a run's kept stage; committed
STORED_MAPS = STORED / "maps"
DATASETS = RESULTS / "datasets"  # counts of a dataset, one JSON each; committed
STORED_DATASETS = STORED / "datasets"
CACHE = DATA / "cache"  # decoded images; not committed
FIGURES = RESULTS / "figures"
TABLES = RESULTS / "tables"  # what notebooks show of an exhibit, one CSV each; committed
REPORT = STORED / "report"  # the page that sums all of it up; not committed
STORED_VERDICTS = STORED / "verdicts"
VERDICTS = RESULTS / "verdicts"  # what each notebook concluded, one JSON a claim


def data_root(root: str | Path | None = None) -> Path:
    """Folder that holds the datasets: the argument, else ``$REPROLIB_DATA``, else ``data/``."""
    folder = os.path.expanduser(root or os.environ.get("REPROLIB_DATA") or DATA)
    return Path(os.path.realpath(folder))  # of links that lead in a circle too: they are a folder that is not there
