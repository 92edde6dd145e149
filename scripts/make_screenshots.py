"""Draws the pictures of docs/dashboard.md and docs/lock.md: real pages over a study that is trained for it. Needs chromium and Playwright.

`python scripts/make_screenshots.py`, with FIRSTLIGHT_DATA set; half a minute on two cores.
"""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.chromium import find_chromium
from firstlight.files import write_bytes

IMAGES = Path(__file__).parents[1] / "docs" / "images"
STUDY = ["mnist_mlp", "--grid", "optim.lr=log:1e-3:0.3:6", "--grid", "optim.momentum=0,0.9", "--seeds", "5", "--name", "lr_and_momentum"]
SMALL = ["split.num_train=3000", "train.test_at_end=false"]
RUNS = {
    "linear": ["mnist_linear"],
    "mlp": ["mnist_mlp"],
    "dropout": ["mnist_mlp", "model.dropout=0.3"],
    "adam": ["mnist_mlp", "optim=adam"],
}


def firstlight(*words: str) -> None:
    """Run a command; its own words are not of interest here."""
    subprocess.run([sys.executable, "-m", "firstlight", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def save(page: Page, name: str, height: int) -> None:
    """Write the top of a page as a picture of 128 colours."""
    shot = Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height})))
    buffer = io.BytesIO()
    shot.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    write_bytes(IMAGES / name, buffer.getvalue())
    print(f"{name}: {len(buffer.getvalue()) / 1024:.0f} KiB")


def main() -> None:
    """Train, serve, look."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FIRSTLIGHT_RUNS"] = f"{folder}/runs"
        firstlight("sweep", *STUDY, *SMALL, "train.epochs=3")
        for name, words in RUNS.items():
            firstlight("train", *words, *SMALL, "train.epochs=8", "--name", name)
        command = [sys.executable, "-m", "firstlight", "dashboard", "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 1000})
            page.goto(address)
            page.wait_for_selector("tbody tr")
            page.goto(re.sub(r"\?.*", "?sort=val_accuracy", address))
            page.wait_for_selector("tbody tr")
            page.evaluate("document.querySelector('code').textContent = 'runs'")
            save(page, "dashboard-runs.png", 620)
            page.goto(re.sub(r"\?.*", "studies", address))
            page.get_by_role("link", name="lr_and_momentum").first.click()
            page.wait_for_selector("#ranks svg")
            page.wait_for_selector("#map")
            save(page, "dashboard-study.png", 900)
            browser.close()
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
