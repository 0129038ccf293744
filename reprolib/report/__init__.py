"""The HTML report: the scorecard, every notebook as a page and every figure; it needs no network."""

import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reprolib import figures, maps, paths, results
from reprolib.batch import REPRODUCED
from reprolib.datasets import load_dataset
from reprolib.files import replacing
from reprolib.pages import page
from reprolib.recipe import BUC, DBC
from reprolib.record import commit, own_version, require_source
from reprolib.report.notebooks import UNNAMED, NotebookPage, ReportError, read
from reprolib.verdicts import VERDICTS, conclusions, digits

__all__ = ["ReportError", "build"]

MAPS = {"09_tsne": BUC, "16_tsne": DBC}  # figures that notebooks 09 and 16 draw from the stored maps


def build(source: str = "stored", *, reproduced: Path = REPRODUCED, target: Path = paths.REPORT) -> Path:
    """Write the report and return the path of its first page.

    Args:
        source: "stored" for the notebooks and verdicts in the repository, or "run" for those that
            ``reprolib reproduce`` wrote to ``reproduced``.
        reproduced: the folder of these results.
        target: the report's folder. An older report in it is replaced when the new one is complete.

    Raises:
        ValueError: an unknown source.
        ReportError: nothing to report, an unreadable notebook, a verdict that no notebook shows, or a target that is
            not a report; the message gives the remedy.
    """
    require_source(source)
    stored = source == "stored"
    folder = paths.NOTEBOOKS if stored else reproduced / "executed"
    notebooks = [read(file) for file in sorted(folder.glob("*.ipynb"))]
    if not notebooks:
        remedy = paths.NO_CHECKOUT if stored else "run them first with reprolib reproduce"
        raise ReportError(f"{folder}: no notebooks; {remedy}")
    cards = _cards(notebooks, paths.STORED_VERDICTS if stored else reproduced / "verdicts")
    _require_own(target)
    with replacing(target) as partial:
        partial.mkdir()
        if stored:
            _draw_stored_maps(partial)
        else:
            for file in (reproduced / "figures").glob("*.html"):
                shutil.copy(file, partial)
        _write(partial, notebooks, cards, origin=_origin(stored))
        shutil.rmtree(target, ignore_errors=True)
    return target / "index.html"


def _cards(notebooks: list[NotebookPage], folder: Path) -> list[dict]:
    """Return every verdict, with the page and cell that shows it, in the order of the notebooks."""
    shown = {line: f"{n.name}.html#{cell}" for n in notebooks for line, cell in n.verdicts.items()}
    cards = conclusions(folder)
    for card in cards:
        line = f"{card['verdict'].upper()}: {card['claim']}"
        if line not in shown:
            raise ReportError(
                f"{card['file']}: no notebook shows {line!r}; run its notebook again, or delete the file if its text "
                "is from an earlier version"
            )
        card["link"] = shown[line]
    in_order = list(shown.values())
    return sorted(cards, key=lambda card: in_order.index(card["link"]))


def _require_own(target: Path) -> None:
    index = target / "index.html"
    own = index.is_file() and '<meta name="generator" content="reprolib">' in index.read_text(encoding="utf-8")
    free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not (free or own):
        raise ReportError(f"{target}: exists and is not a complete report; move it away and run this command again")


def _draw_stored_maps(folder: Path) -> None:
    split = load_dataset("synthetic")
    for name, recipe in MAPS.items():
        (record,) = results.load_or_run([recipe], dataset="synthetic")
        points = maps.feature_map(record, split)
        figures.tsne_stages(record, points.xy, split, record.pseudo_labels(), name, folder=folder)


def _origin(stored: bool) -> str:
    state = commit("reprolib", "notebooks", "results", "data")
    made_of = (
        "the stored notebooks and records" if stored else "notebooks executed on this machine by reprolib reproduce"
    )
    return (
        f"Made by reprolib {own_version()} at commit {state}, of {made_of}; "
        "each notebook that shows runs ends with their provenance."
    )


def _link_back(file: Path, notebook: str) -> None:
    """Put links to the scorecard and to the notebook's page above an interactive map."""
    links = f'<body>\n<nav>\n<a href="index.html">scorecard</a>\n<a href="{notebook}">notebook</a>\n</nav>'
    file.write_text(file.read_text(encoding="utf-8").replace("<body>", links, 1), encoding="utf-8")


def _write(folder: Path, notebooks: list[NotebookPage], cards: list[dict], *, origin: str) -> None:
    """Write every page and figure."""
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    interactive = {n.name: sorted(f.name for f in folder.glob(f"{n.name[:2]}_*.html")) for n in notebooks}
    for notebook, files in interactive.items():
        for file in files:
            _link_back(folder / file, f"{notebook}.html")
    for before, notebook, after in zip([None, *notebooks], notebooks, [*notebooks[1:], None], strict=False):
        for name, figure in notebook.figures.items():
            (folder / name).write_bytes(figure.png)
        context = {"notebook": notebook, "before": before, "after": after, "maps": interactive[notebook.name]}
        body = templates.get_template("notebook.html.j2").render(origin=origin, **context)
        (folder / f"{notebook.name}.html").write_text(page(notebook.title, body), encoding="utf-8")
    body = templates.get_template("index.html.j2").render(
        notebooks=notebooks,
        cards=cards,
        digits=digits,
        verdicts=VERDICTS,
        maps=interactive,
        origin=origin,
        unnamed=UNNAMED,
    )
    (folder / "index.html").write_text(page("reprolib: BUC and DBC, reproduced", body), encoding="utf-8")
