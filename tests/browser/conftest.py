"""A browser and a dashboard for the tests of pages: Playwright drives Debian's chromium, and no other is downloaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.chromium import find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.dashboard.served import Served


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """A headless browser for the pages of one file; while Playwright runs, no asyncio can in the same thread."""
    if find_chromium() is None and "FIRSTLIGHT_NEEDS_BROWSER" not in os.environ:
        pytest.skip("needs chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", served: "Served", *, width: int = 1280, dark: bool = False, refused: int = 0) -> Iterator["Page"]:
    """Open a tab that is let into the dashboard; at the end nothing was said in its console, and nothing asked of another host.

    refused: answers with an error that the test provokes, which a browser notes in its console.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", base_url=f"http://{served.host}:{served.port}"
    )
    name, _, value = served.cookie.partition("=")
    context.add_cookies([{"name": name, "value": value, "domain": served.host, "path": "/"}])
    page, said, asked = context.new_page(), [], []  # type: ignore[var-annotated]
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        yield page
    finally:
        context.close()
    assert len(said) == refused and all("the server responded with a status of 4" in line for line in said), said
    assert [url for url in asked if not url.startswith((f"http://{served.host}:{served.port}/", "data:", "blob:"))] == []


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const lightness = ([r, g, b]) => {
    const linear = [r, g, b].map((one) => one / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const parts = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parts(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255];
  };
  const shown = [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() &&
    [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && !one.closest("title, script, option, datalist"));
  return shown.map((one) => {
    const style = getComputedStyle(one), color = one.tagName === "text" ? style.fill : style.color;
    const [ink, paper] = [lightness(parts(color)), lightness(ground(one))];
    const told = one.tagName + "." + one.className + ": " + one.textContent.trim().slice(0, 30);
    return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), told];
  }).sort((a, b) => a[0] - b[0]).slice(0, 3);
}"""


def check_look(page: "Page", width: int) -> None:
    """WCAG AA: every text has a contrast of 4.5 to what is behind it; nothing sticks out at the side."""
    least: Any = page.evaluate(CONTRAST)
    assert least[0][0] >= 4.5, least
    assert page.evaluate("document.documentElement.scrollWidth") <= width
