"""Interactive version of a t-SNE map: one HTML file that needs no network, with a slider for the stage."""

import base64
import io
import json
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from reprolib import paths
from reprolib.datasets import Split
from reprolib.figures.people import first_frames
from reprolib.figures.style import label_of
from reprolib.files import replacing
from reprolib.pages import page
from reprolib.record import RunRecord

PULL = 2 / 3  # share of the way from a point to the mean position of its cluster
BUTTONS = [["pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]


def tsne_stages(
    record: RunRecord,
    xy: np.ndarray,
    split: Split,
    pseudo_labels: np.ndarray,
    name: str,
    *,
    folder: Path | None = None,
) -> None:
    """Write ``<name>.html`` to ``folder``, else ``results/figures``: a t-SNE map (N, 2) whose clusters gather by stage.

    ``pseudo_labels`` (stages, N) are the labels that each stage of the run trained on; the map is that of the kept
    stage. Pointing at an image shows the image with its identity, camera and cluster. The file contains every image: do
    not share it if they show real people. It is designed for a few thousand images at most, like those of the papers'
    100 identities.
    """
    data = {
        "places": np.round(gathered(xy, pseudo_labels), 2).tolist(),
        "clusters": pseudo_labels.tolist(),
        "pids": split.train_pids.tolist(),
        "camids": split.train.camids.tolist(),
        "images": [_data_uri(frame) for frame in first_frames(split.train)],
        "kept": record.selected,
    }
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    recipe = record.settings["recipe"]["name"]
    title = f"{label_of(recipe)} on {split.name}: clusters gather, stage by stage"
    body = f"""<h1>{escape(title)}</h1>
<div class="controls">
<label for="stage">stage</label>
<input id="stage" type="range" min="0" max="{len(pseudo_labels) - 1}" value="{record.selected}"
  aria-describedby="state">
<span>color: <label><input type="radio" name="color" value="cluster" checked> cluster</label>
<label><input type="radio" name="color" value="identity"> identity</label></span>
</div>
<p id="state" aria-live="polite"></p>
<div class="map">
<div class="plot">{_empty_plot(xy)}</div>
<aside id="pointed">Point at an image, or tap it.</aside>
</div>
<p class="dim">A point is a training image. At stage 0 each stands where t-SNE put it; at every stage each is drawn two
thirds of the way from there to the mean place of its cluster. Only this pull changes with the stage: the map itself is
made once, of the features of the stage kept ({record.selected}). Clusters are those of the pseudo-labels that the
stage trained on; an image that is alone in its cluster is gray. Identities are shown, never trained on.</p>
<script type="application/json" id="data">{content}</script>
<script>
{script}</script>"""
    with replacing((folder or paths.FIGURES) / f"{name}.html") as partial:
        partial.write_text(page(title, body, scripts=True), encoding="utf-8")


def gathered(xy: np.ndarray, pseudo_labels: np.ndarray) -> np.ndarray:
    """Return the positions of the points at each stage, (stages, N, 2), pulled towards the mean of their cluster."""
    places = np.empty((len(pseudo_labels), *xy.shape))
    for stage, labels in enumerate(pseudo_labels):
        sums = np.zeros((labels.max() + 1, 2))
        np.add.at(sums, labels, xy)
        means = sums / np.bincount(labels)[:, None]
        places[stage] = xy + PULL * (means[labels] - xy)
    return places


def _empty_plot(xy: np.ndarray) -> str:
    """Return the axes with one point per image; the page's script sets positions and colors."""
    import plotly.graph_objects as go  # only this figure needs it

    low, high = xy.min(0), xy.max(0)
    margin = 0.04 * (high - low).max()
    ranges = np.stack([low - margin, high + margin], 1).tolist()
    figure = go.Figure(go.Scatter(mode="markers", hoverinfo="none", marker={"size": 7}))
    figure.update_layout(
        template="none",
        xaxis={"visible": False, "range": ranges[0]},
        yaxis={"visible": False, "range": ranges[1], "scaleanchor": "x"},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#7a828c", "activecolor": "#4a90d9"},
        dragmode=False,  # a finger scrolls the page; the buttons zoom and pan
    )
    config = {"displaylogo": False, "displayModeBar": True, "modeBarButtons": BUTTONS, "responsive": True}
    return figure.to_html(full_html=False, include_plotlyjs=True, div_id="map", config=config)


def _data_uri(frame: np.ndarray) -> str:
    """Return an image (H, W, 3) as a small JPEG embedded in the page."""
    image, file = Image.fromarray(frame), io.BytesIO()
    image.thumbnail((64, 128))
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
