"""The dashboard's pages of studies, comparisons, inspections and predictions in a real browser, served by a real process.

Chromium is driven by Playwright. Every page of every test is watched: no error on the console, no request to another host.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

import firstlight as fl
from firstlight.config.schema import Kind
from firstlight.dashboard.index import id_of
from firstlight.data.build import load_part
from firstlight.inspection.confusion import inspect_confusion
from firstlight.studies.report import revisit
from firstlight.studies.runner import open_study, run_study
from firstlight.tracking.console import Console
from tests.browser.conftest import check_look, opened
from tests.dashboard.served import Served

EXPERIMENT = """
data: digits
model: {name: mlp, hidden: [8]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
split: {num_train: 200}
train: {epochs: 2, batch_size: 50}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""
GRID = ["optim.lr=0.001,0.03,0.3", "optim.momentum=0,0.9"]
FEW = [f"{key}={value}" for key, value in (("split.num_train", 300), ("train.epochs", 2), ("train.test_at_end", "false"))]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of six settings with two seeds; two runs, of which the first was looked at; one that is damaged."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    study, store = open_study(folder / "tiny.yaml", ["seeds=2"], grid=GRID, name="grid", runs_dir=folder / "runs")
    run_study(study, store, Console(quiet=True), lanes="on")
    for name, rate in (("first", 0.003), ("second", 0.0003)):
        fl.train("quickstart", "model=linear", *FEW, f"optim.lr={rate}", name=name, runs_dir=folder / "runs")
    inspect_confusion(folder / "runs" / "first")
    (folder / "runs" / "half").mkdir()
    (folder / "runs" / "half" / "run.json").write_text('{"state": "runn')
    return folder / "runs"


@pytest.fixture(scope="module")
def served(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(runs_dir, tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.fixture
def page(chromium: Browser, served: Served) -> Iterator[Page]:
    with opened(chromium, served) as shown:
        yield shown


def show(page: Page, path: str, ready: str) -> None:
    page.goto(path)
    page.wait_for_selector(ready)


STUDY, FIRST, SECOND = f"/study/{id_of('grid')}", id_of("first"), id_of("second")


def test_the_answer_stands_first(page: Page, runs_dir: Path) -> None:
    """Issue 8's "done when": the best setting and how sure one can be, above everything else, as the study's own answer has it."""
    show(page, STUDY, "#settings")
    answer = revisit(str(runs_dir / "grid"))
    verdict = page.locator("#verdict")
    shown = json.loads(page.evaluate(f"fetch('/api{STUDY}').then(answer => answer.text())"))
    best = max(shown["points"], key=lambda point: point["mean"])
    expect(verdict).to_contain_text(best["setting"])
    expect(verdict).to_contain_text(f"{best['mean']:.4f}")
    expect(verdict).to_contain_text("How sure: ")
    expect(verdict).not_to_contain_text("null")
    assert answer["best"]["mean"] == pytest.approx(best["mean"])
    box = verdict.bounding_box()
    assert box is not None and box["y"] + box["height"] < 500
    chart = page.locator("#ranks svg").bounding_box()
    names = [one.bounding_box() for one in page.locator("#ranks svg text.name").all()]
    assert chart is not None and names
    assert all(one is not None and one["x"] >= chart["x"] and one["x"] + one["width"] <= chart["x"] + chart["width"] + 1 for one in names)


def test_from_a_cell_of_the_heat_map_to_its_run(page: Page) -> None:
    """F5: the cell that is framed is the best mean; its runs are those of that setting; a click leads to one of them."""
    show(page, STUDY, "#map button.best")
    cells = [float(text) for text in page.locator("#map td button").all_inner_texts()]
    assert len(cells) == 6 and float(page.inner_text("#map button.best")) == max(cells)
    page.click("#map button.best")
    links = page.locator("#behind-list li a")
    expect(links).to_have_count(2)
    mean = sum(float(text.partition(": ")[2]) for text in links.all_inner_texts()) / 2
    assert mean == pytest.approx(max(cells), abs=5e-4)
    name = (links.first.get_attribute("title") or "").removeprefix("run ")
    links.first.click()
    page.wait_for_url(f"**/run/{id_of(f'grid/{name}')}")
    expect(page.locator("h1")).to_contain_text(name)


def test_the_keyboard_reaches_a_cell_and_closes_what_it_opened(page: Page) -> None:
    show(page, STUDY, "#map button.best")
    page.focus("#map td button")
    page.keyboard.press("Enter")
    expect(page.locator("#behind")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#behind")).to_be_hidden()


def test_charts_follow_what_is_chosen(page: Page) -> None:
    show(page, STUDY, "#response circle")
    page.select_option('[data-pick="Over"]', "optim.momentum")
    expect(page.locator("#response svg")).to_contain_text("optim.momentum")
    expect(page.locator("#response circle.dot")).to_have_count(2)
    expect(page.locator("#response circle.trial")).to_have_count(12)
    expect(page.locator("#parallel polyline")).to_have_count(6)
    page.select_option('[data-pick="Columns"]', "optim.momentum")
    expect(page.locator("#map tbody tr")).to_have_count(3)
    page.click("#sort-optim\\.lr")
    values = page.locator("#settings tbody td:nth-child(2)").all_inner_texts()
    assert [float(value) for value in values] == [0.001, 0.001, 0.03, 0.03, 0.3, 0.3]


def test_a_running_study_is_followed(chromium: Browser, tmp_path: Path) -> None:
    """Issue 8: rows come by themselves while the study runs in another process, and the page says when it is done."""
    runs = tmp_path / "runs"
    runs.mkdir()
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    words = [sys.executable, "-m", "firstlight", "sweep", str(tmp_path / "tiny.yaml"), "--grid", "optim.lr=0.03,0.3", "seeds=2"]
    words += ["--lanes", "off", "--name", "live", "--runs-dir", str(runs), "train.epochs=20"]
    with Served(runs, tmp_path) as served:
        sweep = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            served.wait_for(lambda: served.get(f"/study/{id_of('live')}").status == 200)
            sweep.send_signal(signal.SIGSTOP)  # it shall not be done before the page is there
            with opened(chromium, served) as page:
                show(page, f"/study/{id_of('live')}", "#verdict .progress")
                expect(page.locator("#verdict .state")).to_have_text("running")
                sweep.send_signal(signal.SIGCONT)
                expect(page.locator("#verdict .progress")).to_contain_text("4 of 4 trials", timeout=60_000)
                assert sweep.wait(60) == 0
                expect(page.locator("#verdict .state")).to_have_text("finished")
                expect(page.locator("#settings tbody tr")).to_have_count(2)
        finally:
            sweep.kill()
            sweep.wait()


def test_two_runs_on_the_same_axes(page: Page, served: Served) -> None:
    """D14: chosen in the list, both curves are drawn in their colours, a name hides its curve, and what differs is named."""
    show(page, "/?q=model%3Dlinear", 'input[name="runs"]')
    for run in (FIRST, SECOND):
        page.check(f'input[name="runs"][value="{run}"]')
    page.click("#compare button")
    page.wait_for_selector(".uplot canvas >> nth=1")
    expect(page.locator(".runkeys button")).to_have_count(2)
    assert page.locator(".runkeys button").all_inner_texts() in (["first", "second"], ["second", "first"])
    both = colors(page)
    assert min(both) > 20, "two colours of curves"
    page.click(f"#key-{SECOND}")
    expect(page.locator(f"#key-{SECOND}")).to_have_attribute("aria-pressed", "false")
    served.wait_for(lambda: colors(page) != both)
    one = colors(page)
    assert (one[0] > 20 and one[1] == 0) or (one[0] == 0 and one[1] > 20)
    expect(page.locator(".differ tbody th")).to_have_text(["optim.lr"])
    expect(page.locator("#verdict")).to_contain_text("says nothing about noise")


COLORS = """() => {
  const drawn = document.querySelector(".uplot canvas"), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [drawn.width, drawn.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(drawn, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const parts = (swatch) => getComputedStyle(swatch).backgroundColor.match(/\\d+/g).map(Number);
  return [...document.querySelectorAll(".swatch")].map(parts).map((color) => {
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      count += data[at + 3] > 200 && color.every((part, channel) => Math.abs(data[at + channel] - part) < 6);
    }
    return count;
  });
}"""


def colors(page: Page) -> list[int]:
    """Return how many pixels of the first chart have the colour of each run."""
    found: list[int] = page.evaluate(f"({COLORS})()")
    return found


def likeness(shown: Locator, tile: np.ndarray[Any, Any]) -> float:
    """Return the correlation of what is shown with an image of 8 x 8; 0 where one colour is shown."""
    shot = Image.open(BytesIO(shown.screenshot())).convert("L").resize((8, 8), Image.Resampling.BOX)
    values = np.asarray(shot, dtype=float)
    return float(np.corrcoef(values.ravel(), tile.ravel())[0, 1]) if values.std() > 0 else 0.0


def test_from_a_cell_of_the_confusion_matrix_to_its_images(page: Page, runs_dir: Path) -> None:
    """F5: as many images as the cell counts, each with the pixels of its image in the data set; no data set is read for it."""
    show(page, f"/run/{FIRST}/inspection", "button[data-cell]")
    kept = json.loads((runs_dir / "first" / "inspection" / "confusion-val.json").read_text())
    label, guess = max(((i, j) for i in range(10) for j in range(10) if i != j), key=lambda pair: kept["confusion"][pair[0]][pair[1]])
    count = kept["confusion"][label][guess]
    button = page.locator(f'button[data-cell="{label},{guess}"]')
    expect(button).to_have_text(str(count))
    button.click()
    expect(page.locator("#cell-title")).to_have_text(f"{label} taken for {guess}: {count} image{'s' if count > 1 else ''}")
    expect(page.locator("#cell .tile")).to_have_count(count)
    numbers = [int(text.rpartition("#")[2]) for text in page.locator("#cell figcaption").all_inner_texts()]
    places = [kept["cells"]["index"].index(number) for number in numbers]
    assert all((kept["cells"]["label"][place], kept["cells"]["predicted"][place]) == (label, guess) for place in places)
    with Image.open(runs_dir / "first" / "inspection" / kept["cells"]["picture"]) as sheet:
        row, column = divmod(places[0], kept["cells"]["columns"])
        tile = np.asarray(sheet.crop((column * 8, row * 8, column * 8 + 8, row * 8 + 8)), dtype=float)
    assert any(likeness(page.locator("#cell .tile").first, tile) > 0.95 for _ in range(100))  # the picture comes behind the title
    page.keyboard.press("Escape")
    expect(page.locator("#cell")).to_be_hidden()


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A validation image of the digits as a file, and its label."""
    images = load_part(Kind("digits"), "test", Path("unused"))
    path = tmp_path_factory.mktemp("images") / "digit.png"
    Image.fromarray(images.pixels(5)).save(path)
    assert images.labels is not None
    return path, int(images.labels[5])


DROP = """([name, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], name));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def test_a_dropped_image_gives_bars(chromium: Browser, served: Served, digit: tuple[Path, int], runs_dir: Path) -> None:
    """Issue 8: the bars are the probabilities of `firstlight predict`, and the network's view is drawn; what is no image is one line."""
    with opened(chromium, served, refused=1) as page:
        show(page, f"/run/{FIRST}/predict", "#drop")
        page.evaluate(DROP, ["digit.png", list(digit[0].read_bytes())])
        page.wait_for_selector("#result:not([hidden])")
        expected = fl.predict(runs_dir / "first", [digit[0]])[0]
        expect(page.locator(".answer strong")).to_have_text(expected["label"])
        shown = [float(text) for text in page.locator("#bars dd:not(.track)").all_inner_texts()]
        assert shown == pytest.approx([round(value, 3) for value in expected["probabilities"].values()], abs=6e-4)
        expect(page.locator("#result canvas")).to_have_count(2)
        page.evaluate(DROP, ["words.txt", list(b"these are words")])
        expect(page.locator("#problem")).to_have_text("this is no PNG or JPEG image; choose another file")
        expect(page.locator("#result")).to_be_hidden()
        page.set_input_files("#file", files=[{"name": "large.png", "mimeType": "image/png", "buffer": b"\x89PNG" + b"x" * 2**20}])
        expect(page.locator("#problem")).to_contain_text("at most 1,048,576 are taken")


def test_what_is_sent_past_the_page_is_refused_as_json(served: Served) -> None:
    """Fault 52: 4xx with one line, never 500; a run that is none, or damaged, is no reason to fall."""
    origin = {"Origin": f"http://{served.host}:{served.port}"}
    place = f"/api/run/{FIRST}/predict"
    for body, status in ((b"", 400), (b"hello", 422), (b"\x89PNG\r\n\x1a\n" + b"\0" * 2000, 422), (b"\xff\xd8\xff" + b"x" * 5000, 422)):
        found = served.ask("POST", place, body=body, **origin)
        assert found.status == status and list(found.json) == ["error"] and "\n" not in found.json["error"]
    assert served.ask("POST", place, body=b"x" * (2**20 + 1), **origin).status == 413
    assert served.ask("POST", place, body=b"hello").status == 403
    assert served.ask("POST", f"/api/run/{'0' * 16}/predict", body=b"x", **origin).status == 404
    assert served.ask("POST", f"/api/run/{id_of('half')}/predict", body=b"\x89PNG", **origin).status in (409, 422)
    for path in (
        "/run/x/inspection",
        "/study/x",
        "/compare?runs=x&runs=y",
        f"/run/{FIRST}/file/none.png",
        f"/run/{FIRST}/file/..%2Frun.json",
    ):
        assert served.get(path).status == 404
    assert served.get("/api/compare?" + "&".join(f"runs={number}" for number in range(21))).status == 400
    assert served.get(f"/run/{FIRST}/inspection").status == 200


def test_a_damaged_run_stands_beside_good_ones(page: Page) -> None:
    """Fault 50: it is named, and the rest of the page is there."""
    show(page, f"/compare?runs={FIRST}&runs={SECOND}&runs={id_of('half')}", "#verdict")
    expect(page.locator("#verdict")).to_contain_text("half is damaged and left out (run.json: ")
    expect(page.locator(".runkeys button")).to_have_count(2)


PAGES = {
    "studies": ("/studies", "table.runs"),
    "study": (STUDY, "#settings"),
    "compare": (f"/compare?runs={FIRST}&runs={SECOND}", ".uplot"),
    "inspection": (f"/run/{FIRST}/inspection", "button[data-cell]"),
    "predict": (f"/run/{FIRST}/predict", "#drop"),
}


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1600, False)], ids=["telephone, dark", "wide, light"])
def test_every_page_fits_and_can_be_read(width: int, dark: bool, chromium: Browser, served: Served) -> None:
    """400 and 1600 px, light and dark: nothing scrolls sideways, and every text has the contrast of WCAG AA."""
    with opened(chromium, served, width=width, dark=dark) as page:
        for path, ready in PAGES.values():
            show(page, path, ready)
            check_look(page, width)
