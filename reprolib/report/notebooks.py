"""Notebooks as HTML: nbconvert's exporter with a custom template, equations as MathML, and nothing executable."""

import re
from base64 import b64decode
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

import bleach
import nbformat
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from reprolib.verdicts import VERDICTS

VERDICT = re.compile(rf"^(?:{'|'.join(map(str.upper, VERDICTS))}): .+$", re.MULTILINE)
UNNAMED = "a figure of the notebook"  # alternative text for a figure without a caption
LONG = 40  # an equation with more characters may be wider than a phone
BAR = '<mo stretchy="false" lspace="0" rspace="0">|</mo>'
TABLE_TAGS = ["table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption", "div", "p", "b", "i", "code", "br"]
TABLE_ATTRIBUTES = ["class", "colspan", "rowspan"]


class ReportError(ValueError):
    """The report cannot be made; the message names the file and the remedy."""


class Figure(NamedTuple):
    """A figure of a notebook."""

    png: bytes
    caption: str
    cell: str  # id of the cell that shows it


@dataclass(frozen=True)
class NotebookPage:
    """The parts of a notebook that the report uses."""

    name: str  # file name without suffix
    title: str
    body: Markup  # HTML
    figures: dict[str, Figure]  # by file name
    verdicts: dict[str, str]  # printed verdict: id of its cell
    execution: str  # how papermill executed it; empty for a stored notebook


def read(file: Path) -> NotebookPage:
    """Read and convert a notebook.

    Raises:
        ReportError: not a notebook, or an incomplete one.
    """
    try:
        notebook = nbformat.read(file, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    except (ValueError, LookupError, AttributeError, OSError) as error:
        raise ReportError(f"{file}: not a notebook ({error}); restore it, or run it again") from error
    figures, verdicts = {}, {}
    following = [*notebook.cells[1:], nbformat.v4.new_markdown_cell()]
    for cell, after in zip(notebook.cells, following, strict=True):
        for output in cell.get("outputs", []):
            for line in VERDICT.findall(output.get("text", "")):
                verdicts[line] = cell.get("id", "")
            if "image/png" in output.get("data", {}):
                name = f"{file.stem[:2]}_{len(figures) + 1}.png"
                png = b64decode(output.data["image/png"])
                figures[name] = Figure(png, _caption(after), cell.get("id", ""))
                output.metadata |= {"file": name, "caption": figures[name].caption or UNNAMED}
    body, _ = _Exporter().from_notebook_node(notebook)
    return NotebookPage(
        file.stem, title, Markup(body), figures, verdicts, _execution(notebook.metadata.get("papermill"))
    )


def _caption(cell: nbformat.NotebookNode) -> str:
    """Return the caption under a figure, which the notebooks set in italics; empty if there is none."""
    text = cell.source if cell.cell_type == "markdown" else ""
    paragraph = re.match(r"\*(?!\*)(.+?)\*(?:\n\n|\Z)", text, re.DOTALL)
    return " ".join(re.sub(r"[*`$]", "", paragraph[1]).split()) if paragraph else ""


def _execution(papermill: dict | None) -> str:
    if not papermill:
        return ""
    given = ", ".join(f"{name} = {value}" for name, value in papermill["parameters"].items())
    whole = papermill.get("end_time") and not papermill.get("exception")
    return (
        f"Executed {papermill['start_time'][:10]} with {given or 'its default parameters'}"
        f"{'' if whole else '; it did not run to its end'}."
    )


class _Renderer(IPythonRenderer):
    """Markdown renderer that shows HTML as text and equations as MathML."""

    def inline_math(self, body: str) -> str:
        equation = _mathml(body, display="inline")
        return f'<span class="long">{equation}</span>' if len(body) > LONG else equation

    def block_math(self, body: str) -> str:
        return f'<span class="equation">{_mathml(body, display="block")}</span>'


def _mathml(latex: str, *, display: str) -> str:
    """Convert an equation to MathML; one that the converter cannot read, or would pass on as HTML, becomes text."""
    try:
        if re.search(r"<[^\s\d]", latex):
            raise ValueError("HTML in an equation")
        # MathML takes a bar for an operator, with space on both sides; in these papers it denotes a size.
        return re.sub(r'<mo(?: stretchy="false")?>&#x0007C;</mo>', BAR, convert(latex.strip(), display=display))
    except Exception:  # the converter's errors have no common base class
        return f"<code>{escape(latex)}</code>"


class _Exporter(HTMLExporter):
    def __init__(self):
        super().__init__(
            template_name="base", raw_template=Path(__file__).with_name("cells.html.j2").read_text("utf-8")
        )
        self.register_filter("tables", _tables)

    def default_filters(self):
        yield from super().default_filters()
        yield "markdown2html", _markdown


def _markdown(source: str) -> str:
    renderer = _Renderer(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(source)


def _tables(html: str) -> str:
    """Give a pandas table the style of the page instead of its own; short entries stay on one line."""
    plain = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    plain = bleach.clean(plain, tags=TABLE_TAGS, attributes=TABLE_ATTRIBUTES, strip=True)
    return re.sub(r"<(t[dh])(?=>[^<]{0,24}</)", r'<\1 class="short"', plain)
