"""Facts published by the datasets' authors: folder names, counts to check against, origin, terms."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Size of one set."""

    identities: int  # without distractors (pid 0) and junk (pid -1)
    tracklets: int  # images, in an image dataset; without junk
    cameras: int

    def __str__(self) -> str:
        """Format the counts for a sentence."""
        return f"{self.identities:,} identities, {self.tracklets:,} images or tracklets, {self.cameras} cameras"


@dataclass(frozen=True)
class Source:
    """One dataset as published by its authors."""

    title: str
    folders: tuple[str, ...]  # names of its folder, the published one first; an archive adds .zip ... to one
    parts: tuple[str, ...]  # subfolders
    counts: dict[str, Counts]  # for "train", "query" and "gallery"
    origin: str  # where to get it, or why it is not available
    terms: str
    alternatives: tuple[str, ...] = ()  # any of these replaces all the parts
    has_distractors: bool = False  # whether pid 0 denotes distractors


_DUKE_WITHDRAWN = (
    "withdrawn by Duke University in 2019 (it was recorded outside the scope that the ethics board approved) and no "
    "longer offered by its authors; described at "
)

SOURCES = {
    "market1501": Source(
        title="Market-1501",
        folders=("Market-1501-v15.09.15", "Market-1501", "Market1501", "market1501"),
        parts=("bounding_box_train", "query", "bounding_box_test"),
        # Gallery: 13,115 images of people and 2,798 distractors. BUC and DBC give 19,732, which counts the 3,819
        # junk images; the project page gives 2,793 distractors.
        counts={"train": Counts(751, 12936, 6), "query": Counts(750, 3368, 6), "gallery": Counts(750, 15913, 6)},
        origin="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
        terms="research only, not to be passed on (readme.txt of the archive)",
        has_distractors=True,
    ),
    "dukemtmc-reid": Source(
        title="DukeMTMC-reID",
        folders=("DukeMTMC-reID", "dukemtmc-reid", "DukeMTMC", "duke"),
        parts=("bounding_box_train", "query", "bounding_box_test"),
        # Gallery: the 702 people of the queries and 408 people seen by only one camera.
        counts={"train": Counts(702, 16522, 8), "query": Counts(702, 2228, 8), "gallery": Counts(1110, 17661, 8)},
        origin=_DUKE_WITHDRAWN + "https://github.com/layumi/DukeMTMC-reID_evaluation",
        terms="ODC-By 1.0, academic use only",
    ),
    "mars": Source(
        title="MARS",
        folders=("MARS", "mars", "MARS-v160809"),
        parts=("bbox_train", "bbox_test", "info"),
        # DBC Table I: 636 identities and 12,180 tracklets in the gallery. That is all of bbox_test: 634 people, pid 0
        # and pid -1 counted as two more, and 870 junk tracklets. Without the junk: 11,310 of 634.
        counts={"train": Counts(625, 8298, 6), "query": Counts(626, 1980, 6), "gallery": Counts(634, 11310, 6)},
        origin="https://zheng-lab.cecs.anu.edu.au/Project/project_mars.html, "
        "and its folder info from https://github.com/liangzheng06/MARS-evaluation",
        terms="none stated on its page; an extension of Market-1501, which is for research only",
        has_distractors=True,
    ),
    "dukemtmc-videoreid": Source(
        title="DukeMTMC-VideoReID",
        folders=("DukeMTMC-VideoReID", "dukemtmc-videoreid", "dukemtmc-vidreid"),
        parts=("train", "query", "gallery"),
        # The gallery also contains the queries, and 408 people seen by only one camera: 1,110 people, where DBC
        # Table I has 801.
        counts={"train": Counts(702, 2196, 8), "query": Counts(702, 702, 8), "gallery": Counts(1110, 2636, 8)},
        origin=_DUKE_WITHDRAWN + "https://github.com/Yu-Wu/DukeMTMC-VideoReID",
        terms="CC BY-NC-SA 4.0; DukeMTMC itself ODC-By 1.0, academic use only",
    ),
    "cifar10": Source(
        title="CIFAR-10",
        folders=("cifar10", "CIFAR10", "cifar-10", "CIFAR-10", "cifar10-jpeg"),
        parts=("train", "test"),
        counts={"train": Counts(10, 50000, 1), "query": Counts(10, 10000, 1), "gallery": Counts(10, 50000, 1)},
        origin="https://www.cs.toronto.edu/~kriz/cifar.html (cifar-10-python.tar.gz, 163 MB)",
        terms="none stated; its page asks that the technical report be cited",
        alternatives=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ),
}
