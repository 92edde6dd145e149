"""A report in a real browser, opened as a file with nothing beside it: it renders, sorts, takes answers, saves and prints.

Debian's chromium is driven over a pipe (benchmarks/chromium.py); `.ci/run` installs it where it is missing.
"""

import os
import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from benchmarks.chromium import Chromium, find_chromium
from firstlight.reports.writeup import answers_in

pytestmark = pytest.mark.skipif(
    find_chromium() is None and "FIRSTLIGHT_NEEDS_BROWSER" not in os.environ, reason="needs chromium on the PATH"
)
MOST_WAITING = 30


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    run = fl.train("quickstart", "model=linear", "train.epochs=3", "train.test_at_end=false", name="first", runs_dir=folder)
    fl.evaluate(run.path)
    return Path(fl.report(run.path)["report"])


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Chromium]:
    with Chromium(downloads) as started:
        yield started


def brightness(png: bytes) -> float:
    """Return the median brightness of a picture, 0 to 255."""
    with Image.open(BytesIO(png)) as image:
        return float(np.median(np.asarray(image.convert("L"))))


def test_it_opens_without_a_word_and_without_a_request(browser: Chromium, page: Path) -> None:
    """F8: nothing refused by the policy, no error, every picture decoded, nothing asked for but the file."""
    browser.open(page)
    assert browser.messages == []
    assert {url.partition(":")[0] for url in browser.requests} == {"file", "data"}
    assert [url for url in browser.requests if url.startswith("file:")] == [page.resolve().as_uri()]
    sizes = browser.run("[...document.images].map(one => one.naturalWidth)")
    assert len(sizes) >= 3 and min(sizes) > 100


def test_the_policy_stops_what_is_not_ours(browser: Chromium, page: Path, tmp_path: Path) -> None:
    """Fault 50: even markup that got in would neither run nor load."""
    bad = tmp_path / "bad.html"
    bad.write_text(page.read_text().replace("<main>", '<main><script>window.hit = 1</script><img src="https://example.org/x.png">', 1))
    browser.open(bad)
    assert browser.run("window.hit") is None
    assert len([line for line in browser.messages if "Content Security Policy" in line]) == 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_light_and_dark(browser: Chromium, page: Path, dark: bool) -> None:
    """The page follows the reader's choice; pictures keep their white ground."""
    browser.open(page, dark=dark)
    assert (brightness(browser.screenshot()) < 60) == dark
    assert browser.run("getComputedStyle(document.images[0]).backgroundColor") == "rgb(255, 255, 255)"
    contrast = browser.run(CONTRAST)
    assert contrast >= 4.5


CONTRAST = """(() => {
  const lightness = (color) => {
    const parts = color.match(/\\d+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = lightness(getComputedStyle(document.body).backgroundColor);
  const words = [...document.querySelectorAll("p, dt, dd, h2, a, td, th button, .kind")];
  return Math.min(...words.map((word) => {
    const ink = lightness(getComputedStyle(word).color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  }));
})()"""
"""The least contrast of any text with the page (WCAG 2)."""


@pytest.mark.parametrize("width", [400, 800, 1280, 1920])
def test_nothing_is_cut_off(browser: Chromium, page: Path, width: int) -> None:
    """On a telephone and on a wide screen the page does not scroll sideways; wide tables scroll inside."""
    browser.open(page, width=width)
    assert browser.run("document.documentElement.scrollWidth") == width
    edges = browser.run("[...document.querySelectorAll('main *:not(.wide *)')].map(one => one.getBoundingClientRect().right)")
    assert max(edges) <= width


def test_a_click_sorts_a_table(browser: Chromium, page: Path) -> None:
    browser.open(page)
    table = "[...document.querySelectorAll('h4')].find(h => h.textContent == 'Epochs').nextElementSibling"
    column = f"[...{table}.querySelectorAll('td:first-child')]"
    assert browser.run(f"{column}.map(cell => cell.textContent)") == ["1", "2", "3"]
    for _ in range(2):
        browser.run("[...document.querySelectorAll('th button')].find(b => b.textContent == 'epoch').click()")
    assert browser.run(f"{column}.map(cell => cell.textContent)") == ["3", "2", "1"]


def test_an_answer_is_typed_saved_and_taken_over(browser: Chromium, page: Path, downloads: Path) -> None:
    """D22: the saved file is a whole page with the answer as text; a new report in its place keeps it."""
    browser.open(page)
    browser.type('[data-answer="next"]', "Try <b>more</b> data.\nAnd dropout.")
    browser.type('[data-answer="author"]', "Ada, group 7")
    browser.run("document.getElementById('save').click()")
    saved, ends = downloads / "report.html", time.monotonic() + MOST_WAITING
    while not saved.is_file() and time.monotonic() < ends:
        browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.messages == []
    assert answers_in(saved) == {"next": "Try <b>more</b> data.\nAnd dropout.", "author": "Ada, group 7"}
    browser.open(saved)
    assert browser.messages == []
    assert browser.run("document.querySelector('[data-answer=next]').innerText") == "Try <b>more</b> data.\nAnd dropout."
    saved.replace(page)
    assert fl.report(page.parent)["answers"] == ["author", "next"]
    browser.open(page)
    assert browser.run("document.querySelector('[data-answer=next]').innerText") == "Try <b>more</b> data.\nAnd dropout."


def test_it_prints_on_whole_pages(browser: Chromium, page: Path) -> None:
    """A4, dark ink on white whatever the screen is, without buttons and contents."""
    browser.open(page, dark=True)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF") and 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20
    browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert brightness(browser.screenshot()) > 200
    assert browser.run("[...document.querySelectorAll('nav, .screen')].every(one => one.getClientRects().length == 0)")
    browser.call("Emulation.setEmulatedMedia", media="")
