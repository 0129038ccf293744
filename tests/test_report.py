"""The report, opened in a real browser: it stands alone, reads well on a phone, in the dark and in the light."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from reprolib import paths, report
from reprolib.figures.interactive import PULL, gathered
from reprolib.record import RecordError
from reprolib.report import ReportError, build

MAPS = ["09_tsne", "16_tsne"]
PAGES = ["index", *sorted(n.stem for n in paths.NOTEBOOKS.glob("*.ipynb")), *MAPS]
PHONE = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
every_page = pytest.mark.parametrize("page", PAGES)

SHOW_ALL_IMAGES = """
const done = arguments[0];
Promise.all([...document.images].map(i => { i.loading = "eager"; return i.decode().catch(() => {}); })).then(
  () => done([...document.images].filter(i => !i.naturalWidth).map(i => i.outerHTML.slice(0, 99))));
"""
FAINT_TEXT = """
const numbers = color => color.match(/[\\d.]+/g).map(Number);
const brightness = color => numbers(color).slice(0, 3).map(v => v / 255)
  .map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
const behind = element => {
  const color = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
  return numbers(color)[3] === 0 ? behind(element.parentElement) : color;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
  const pair = [brightness(getComputedStyle(element).color), brightness(behind(element))];
  const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (contrast < 4.5) faint.push(`${contrast.toFixed(1)}: ${walker.currentNode.data.slice(0, 40)}`);
}
return faint;
"""
POINTS = "return [...document.querySelectorAll('#map .point')].map(p => p.getAttribute('transform'))"


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    return build(target=tmp_path_factory.mktemp("stored") / "report").parent


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument("--disable-component-update")
    options.add_argument("--disable-sync")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.get("about:blank")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def seen(stored, browser):
    """What a phone shows of every page, each opened once."""
    return {page: look_at(browser, stored / f"{page}.html") for page in PAGES}


def look_at(browser, file: Path) -> dict:
    for log in ("browser", "performance"):
        browser.get_log(log)  # what came before
    browser.get(file.as_uri())
    found = {"broken": browser.execute_async_script(SHOW_ALL_IMAGES)}
    found["width"] = browser.execute_script("return document.documentElement.scrollWidth")
    for scheme in ("light", "dark"):
        use(browser, scheme)
        found[scheme] = browser.execute_script(FAINT_TEXT)
        found[f"{scheme} page"] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    found["console"] = [entry["message"] for entry in browser.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    found["requests"] = [url[:99] for url in sent]
    return found


def use(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@every_page
def test_no_page_says_anything_on_the_console(seen, page):
    assert seen[page]["console"] == []


@every_page
def test_no_page_asks_for_anything_beyond_its_folder(seen, stored, page):
    own = (stored.as_uri(), "data:", "blob:")
    assert (stored / f"{page}.html").as_uri() in seen[page]["requests"]
    assert [url for url in seen[page]["requests"] if not url.startswith(own)] == []


@every_page
def test_every_image_is_shown(seen, page):
    assert seen[page]["broken"] == []


@every_page
def test_no_page_scrolls_sideways_on_a_phone(seen, page):
    assert seen[page]["width"] <= PHONE["width"]


@every_page
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_the_light_and_in_the_dark(seen, page, scheme):
    assert seen[page][scheme] == []
    assert seen[page]["light page"] != seen[page]["dark page"]


@pytest.mark.parametrize("page", MAPS)
def test_the_slider_moves_the_points_and_pointing_at_one_shows_its_image(stored, browser, page):
    browser.get((stored / f"{page}.html").as_uri())
    state, slider = (browser.find_element(By.ID, name) for name in ("state", "stage"))
    assert " (kept): " in state.text
    wait = WebDriverWait(browser, 20)
    for key, said in ((Keys.HOME, r"Stage 0 of 19.*: 549 clusters"), (Keys.END, r"Stage 19 of 19.*: 36 clusters")):
        before = browser.execute_script(POINTS)
        assert len(before) == 549
        slider.send_keys(key)
        assert re.search(said, state.text)
        wait.until(lambda b, old=before: sum(p != q for p, q in zip(old, b.execute_script(POINTS), strict=True)) > 400)
    point = browser.find_element(By.CSS_SELECTOR, "#map .point")
    ActionChains(browser).move_to_element(point).perform()
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#pointed > img"))
    shown = browser.find_element(By.ID, "pointed")
    assert re.search(r"identity \d+\ncamera \d\ncluster \d+ of stage 19, ", shown.text)
    assert shown.find_element(By.TAG_NAME, "img").get_property("naturalWidth") == 32


class Page(HTMLParser):
    """Its links, its images, and what can be linked to."""

    def __init__(self, file: Path):
        super().__init__()
        self.targets, self.images, self.ids, self.tags = [], [], set(), set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.ids.add(given.get("id"))
        self.targets += [given["href"]] if tag == "a" else []
        self.images += [given["src"]] if tag == "img" else []


def test_every_link_leads_to_a_place_in_the_report(stored):
    pages = {file.name: Page(file) for file in stored.glob("*.html")}
    assert {p.removesuffix(".html") for p in pages} == set(PAGES)
    for page in pages.values():
        for target in page.targets:
            file, _, place = target.partition("#")
            assert file in pages, target
            assert not place or place in pages[file].ids, target


LINK = r'href="(\d\d)_\w+\.html#[\w-]+">[^<]'  # a link to it from the scorecard


def test_the_first_page_has_every_claim_every_notebook_and_every_figure(stored):
    index = (stored / "index.html").read_text(encoding="utf-8")
    page = Page(stored / "index.html")
    verdicts = list(paths.STORED_VERDICTS.glob("*.json"))
    assert len(re.findall(LINK, index)) == len(verdicts)
    assert {f"{name}.html" for name in PAGES[1:]} <= set(page.targets)
    assert set(page.images) == {figure.name for figure in stored.glob("*.png")}
    assert len(page.images) == sum(n.read_text().count('"image/png"') for n in paths.NOTEBOOKS.glob("*.ipynb"))
    assert re.search(r"Made by reprolib [\d.]+ at commit [\w+]+, of the stored notebooks and records", index)


def test_claims_stand_in_the_order_of_their_notebooks(stored):
    numbers = re.findall(LINK, (stored / "index.html").read_text(encoding="utf-8"))
    assert len(numbers) == len(list(paths.STORED_VERDICTS.glob("*.json")))
    assert numbers == sorted(numbers)


def test_equations_are_read_without_a_script(stored):
    loss = Page(stored / "02_repelled_loss.html")
    assert {"math", "mfrac", "msubsup"} <= loss.tags
    assert "script" not in loss.tags


def test_points_go_two_thirds_of_the_way_to_the_mean_of_their_cluster():
    xy = np.array([[0.0, 0.0], [3.0, 0.0], [9.0, 9.0]], dtype=np.float32)
    alone, paired = gathered(xy, np.array([[0, 1, 2], [0, 0, 1]]))
    assert PULL == 2 / 3
    np.testing.assert_allclose(alone, xy)
    np.testing.assert_allclose(paired, [[1, 0], [2, 0], [9, 9]], atol=1e-6)


CLAIM = {"exhibit": "BUC Fig. 9", "claim": "a < b", "verdict": "partly", "columns": []}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
def reproduced(tmp_path):
    """Put down what ``reprolib reproduce`` would have left: one notebook, which states one verdict."""
    cells = [
        nbformat.v4.new_markdown_cell(f"# 05 · {EVIL}"),
        nbformat.v4.new_code_cell(
            f'print("{EVIL}")',
            outputs=[
                nbformat.v4.new_output("stream", text=f"PARTLY: a < b\n{EVIL}\n"),
                nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="}),
                nbformat.v4.new_output("display_data", {"text/html": f"<table><td>{EVIL}</table>"}),
            ],
        ),
        nbformat.v4.new_markdown_cell(
            f'*"{EVIL}*\n\n{EVIL} [link](javascript:alert(1)) $\\unknown{{$ $\\text{{{EVIL}}}$'
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    ran = {"parameters": {"seeds": [0]}, "start_time": "2026-01-31T12:00:00", "end_time": None}
    notebook.metadata |= {"papermill": ran}
    for folder in ("executed", "verdicts"):
        (tmp_path / folder).mkdir()
    nbformat.write(notebook, tmp_path / "executed" / "05_evil.ipynb")
    (tmp_path / "verdicts" / "a.json").write_text(json.dumps(CLAIM))
    return tmp_path


def test_what_notebooks_hold_is_shown_and_never_run(reproduced):
    folder = build("run", reproduced=reproduced, target=reproduced / "report").parent
    for file in folder.glob("*.html"):
        page, text = Page(file), file.read_text(encoding="utf-8")
        assert "script" not in page.tags
        assert set(page.images) == {"05_1.png"}
        assert not [t for t in page.targets if t.startswith("javascript")]
        assert "&lt;script&gt;alert(1)" in text
        assert "default-src 'none'" in text


def test_an_executed_notebook_says_with_what_it_ran_and_that_it_stopped_short(reproduced):
    folder = build("run", reproduced=reproduced, target=reproduced / "report").parent
    for name in ("index", "05_evil"):
        text = (folder / f"{name}.html").read_text(encoding="utf-8")
        assert "Executed 2026-01-31 with seeds = [0]; it did not run to its end" in text
        assert ", of notebooks executed on this machine" in text


def test_no_notebook_half_a_notebook_and_a_verdict_without_one_are_refused_by_name(reproduced):
    target = reproduced / "report"
    notebook = reproduced / "executed" / "05_evil.ipynb"
    (reproduced / "verdicts" / "b.json").write_text(json.dumps(CLAIM | {"claim": "b < a"}))
    with pytest.raises(ReportError, match=r"b\.json: no notebook shows 'PARTLY: b < a'; .* delete the file"):
        build("run", reproduced=reproduced, target=target)
    (reproduced / "verdicts" / "b.json").write_text('{"exhibit": "BUC')
    with pytest.raises(RecordError, match=r"b\.json: not a verdict"):
        build("run", reproduced=reproduced, target=target)
    notebook.write_bytes(notebook.read_bytes()[:700])
    with pytest.raises(ReportError, match=r"05_evil\.ipynb: not a notebook"):
        build("run", reproduced=reproduced, target=target)
    notebook.unlink()
    with pytest.raises(ReportError, match="run them first with reprolib reproduce"):
        build("run", reproduced=reproduced, target=target)
    with pytest.raises(ValueError, match='not one of "stored", "run"'):
        build("both", target=target)
    assert not target.exists()


def test_whatever_else_is_in_the_reports_place_is_left_there(reproduced):
    target = reproduced / "report"
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(ReportError, match="exists and is not a complete report"):
        build("run", reproduced=reproduced, target=target)
    assert (target / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_may_be_the_reports_place(reproduced):
    target = reproduced / "report"
    target.mkdir()
    assert build("run", reproduced=reproduced, target=target).is_file()


def test_a_report_that_cannot_be_finished_leaves_the_old_one_whole(reproduced, monkeypatch):
    target = reproduced / "report"
    build("run", reproduced=reproduced, target=target)
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    monkeypatch.setattr(report, "_write", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build("run", reproduced=reproduced, target=target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert not list(reproduced.glob("*.partial"))
    monkeypatch.undo()
    (target / "old.html").touch()
    build("run", reproduced=reproduced, target=target)
    assert {file.name for file in target.iterdir()} == before.keys()
