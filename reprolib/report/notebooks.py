"""A notebook as HTML: nbconvert's exporter with a template of our own, equations as MathML, and nothing that runs."""

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

VERDICT = re.compile(r"^(?:REPRODUCED|PARTLY|NOT REPRODUCED|NOT ATTEMPTED): .+$", re.MULTILINE)
UNNAMED = "a figure of the notebook"  # to who cannot see it
LONG = 40  # characters of an equation that may be wider than a phone
BAR = '<mo stretchy="false" lspace="0" rspace="0">|</mo>'
TABLE_TAGS = ["table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption", "div", "p", "b", "i", "code", "br"]
TABLE_ATTRIBUTES = ["class", "colspan", "rowspan"]


class ReportError(ValueError):
    """A report that cannot be made; the message names the file and the remedy."""


class Figure(NamedTuple):
    """A figure of a notebook."""

    png: bytes
    caption: str
    cell: str  # id of the cell that shows it


@dataclass(frozen=True)
class NotebookPage:
    """What the report takes from a notebook."""

    name: str  # of its file, without the ending
    title: str
    body: Markup  # HTML
    figures: dict[str, Figure]  # by file name
    verdicts: dict[str, str]  # line that states one: id of its cell
    execution: str  # how papermill ran it; empty for a stored one


def read(file: Path) -> NotebookPage:
    """Read and convert a notebook.

    Raises:
        ReportError: not a notebook, or half of one.
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
    """The text of the caption under a figure, which the shelf's notebooks set in italics; empty where there is none."""
    text = cell.source if cell.cell_type == "markdown" else ""
    paragraph = re.match(r"\*(?!\*)(.+?)\*(?:\n\n|\Z)", text, re.DOTALL)
    return " ".join(re.sub(r"[*`$]", "", paragraph[1]).split()) if paragraph else ""


def _execution(papermill: dict | None) -> str:
    if not papermill:
        return ""
    given = ", ".join(f"{name} = {value}" for name, value in papermill["parameters"].items())
    whole = papermill.get("end_time") and not papermill.get("exception")
    return (
        f"Executed {papermill['start_time'][:10]} with {given or 'its own parameters'}"
        f"{'' if whole else '; it did not run to its end'}."
    )


class _Renderer(IPythonRenderer):
    """Markdown whose HTML is shown as text and whose equations are MathML."""

    def inline_math(self, body: str) -> str:
        equation = _mathml(body, display="inline")
        return f'<span class="long">{equation}</span>' if len(body) > LONG else equation

    def block_math(self, body: str) -> str:
        return f'<span class="equation">{_mathml(body, display="block")}</span>'


def _mathml(latex: str, *, display: str) -> str:
    """An equation as MathML; what the converter cannot read, or would pass on as HTML, as text."""
    try:
        if re.search(r"<[^\s\d]", latex):
            raise ValueError("HTML in an equation")
        # A bar is an operator to MathML, with room on both sides; in these papers it is a size.
        return re.sub(r'<mo(?: stretchy="false")?>&#x0007C;</mo>', BAR, convert(latex.strip(), display=display))
    except Exception:  # the converter's errors have no base of their own
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
    """A table as pandas writes it, in the style of the page instead of its own; a short entry stays on one line."""
    plain = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    plain = bleach.clean(plain, tags=TABLE_TAGS, attributes=TABLE_ATTRIBUTES, strip=True)
    return re.sub(r"<(t[dh])(?=>[^<]{0,24}</)", r'<\1 class="short"', plain)
