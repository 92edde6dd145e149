"""The dashboard in a real browser over a real server process: SPEC D14 and F5."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import firstlight as fl
from firstlight.dashboard.index import id_of
from tests.browser.conftest import check_look, opened
from tests.dashboard.folders import copy_run, write_run
from tests.dashboard.served import Served

TRAIN = [
    "quickstart",
    "model=linear",
    "data=digits",
    "train.batch_size=16",
    "train.log_every=5",
    "device.threads=1",
    "device.precision=float32",
]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with a report, a damaged one, and 120 light ones."""
    folder = tmp_path_factory.mktemp("pages") / "runs"
    fl.train("quickstart", "model=linear", "train.epochs=3", name="trained", note="first try", runs_dir=folder)
    fl.report(folder / "trained")
    light = write_run(folder / "light-000", lr=0.001, accuracy=0.5)
    for number in range(1, 120):
        copy_run(
            light, folder / f"light-{number:03d}", lr=0.001 * (number + 1), accuracy=0.5 + number / 300, model=["lenet", "mlp"][number % 2]
        )
    (write_run(folder / "damaged") / "config.yaml").write_text("optim: {lr")
    return folder


@pytest.fixture(scope="module")
def served(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(runs_dir, tmp_path_factory.mktemp("cache")) as server:
        yield server


PAGES = ["/", "/?group=model.name", "/?q=nothing%3D1", "/reports", "/run/TRAINED", "/run/DAMAGED", "/nothing"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_every_page_fits_and_can_be_read(chromium: Browser, served: Served, width: int, dark: bool) -> None:
    """400 and 1600 px, light and dark: contrast as WCAG AA wants it, no sideways scroll, no word in the console, nothing from elsewhere."""
    with opened(chromium, served, width=width, dark=dark) as page:
        for path in PAGES[:-1]:
            page.goto(path.replace("TRAINED", id_of("trained")).replace("DAMAGED", id_of("damaged")))
            if path == "/run/TRAINED":
                page.wait_for_selector("[data-chart=loss] canvas")
            check_look(page, width)


def names(page: Page) -> list[str]:
    return page.locator("tbody th a").all_inner_texts()


def test_runs_are_filtered_sorted_paged_and_grouped(chromium: Browser, served: Served) -> None:
    """F5: what one does first on the list of runs."""
    with opened(chromium, served) as page:
        page.goto("/")
        expect(page.locator(".pages")).to_contain_text("Page 1 of 2")
        page.get_by_role("link", name="Next").click()
        expect(page.locator("tbody tr")).to_have_count(22)
        page.get_by_label("Filter").fill("model=mlp optim.lr>=0.1")
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr")).to_have_count(11)
        page.get_by_role("link", name="val accuracy").click()
        expect(page.locator("th[aria-sort=descending]")).to_have_text("val accuracy")
        assert names(page) == [f"light-{number:03d}" for number in range(119, 98, -2)]
        page.get_by_role("link", name="val accuracy").click()
        expect(page.locator("th[aria-sort=ascending]")).to_have_text("val accuracy")
        assert names(page)[0] == "light-099"
        page.locator("summary", has_text="Columns").click()
        page.get_by_label("train.epochs", exact=True).check()
        page.get_by_role("button", name="Show").click()
        expect(page.locator("thead th")).to_contain_text(["name", "epochs"])
        page.get_by_label("Group by").select_option("model.name")
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="mlp").click()
        expect(page.locator("tbody tr")).to_have_count(11)
        page.get_by_label("Filter").fill("optim.rl>1")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("did you mean 'optim.lr'?")


def test_the_keyboard_reaches_everything(chromium: Browser, served: Served) -> None:
    """Tab: skip link first, then sections; arrows move between runs; Enter opens one."""
    with opened(chromium, served) as page:
        page.goto("/?sort=name&order=asc")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
        page.locator("tbody th a").first.focus()
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.textContent") == "light-000"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("light-000")


def test_light_and_dark_are_chosen_and_kept(chromium: Browser, served: Served) -> None:
    with opened(chromium, served, dark=True) as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        page.goto("/")
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Light or dark").click()
        light = page.evaluate(ground)
        assert light == "rgb(255, 255, 255)" != dark
        page.goto(f"/run/{id_of('trained')}")
        assert page.evaluate(ground) == light
        page.get_by_role("button", name="Light or dark").click()
        page.reload()
        assert page.evaluate(ground) == dark


def test_a_report_is_saved(chromium: Browser, served: Served, runs_dir: Path) -> None:
    with opened(chromium, served) as page:
        page.goto("/reports")
        with page.expect_download() as waiting:
            page.get_by_role("link", name="trained").click()
        assert waiting.value.path().read_bytes() == (runs_dir / "trained" / "report.html").read_bytes()


class Watcher(threading.Thread):
    """A client that reads the stream of a run until it has seen the last epoch."""

    def __init__(self, served: Served, name: str, last: int) -> None:
        super().__init__(daemon=True)
        self.connection = HTTPConnection(served.host, served.port, timeout=60)
        self.connection.request("GET", f"/api/run/{id_of(name)}/events", headers={"Cookie": served.cookie})
        self.answer = self.connection.getresponse()
        self.last = last
        self.epochs: set[int] = set()

    def run(self) -> None:
        kind = b""
        while self.last not in self.epochs and (line := self.answer.readline()):
            name, _, value = line.strip().partition(b": ")
            if name == b"data" and kind == b"rows":
                self.epochs |= {row["epoch"] for row in json.loads(value) if row["kind"] == "epoch"}
            kind = value if name == b"event" else b""
        self.answer.close()
        self.connection.close()


def test_fifty_clients_watch_a_training_and_change_nothing(chromium: Browser, served: Served, runs_dir: Path) -> None:
    """F5: curves grow, the log and the state follow; with 50 streams open the run ends with the weights it has without them."""
    command = [sys.executable, "-m", "firstlight", "train", *TRAIN, "train.epochs=12", "--runs-dir", str(runs_dir), "--name"]
    with opened(chromium, served) as page, subprocess.Popen([*command, "live"], stderr=subprocess.DEVNULL) as training:
        served.wait_for(lambda: (runs_dir / "live" / "run.json").exists())
        training.send_signal(signal.SIGSTOP)  # it is over before a busy machine has let 50 clients in
        page.goto("/?q=live")
        page.get_by_role("link", name="live").click(timeout=60_000)  # the list shows it by itself
        watchers = [Watcher(served, "live", last=12) for _ in range(50)]
        for one in watchers:
            one.start()
        expect(page.locator(".state")).to_have_text("running")
        training.send_signal(signal.SIGCONT)
        page.wait_for_selector("[data-chart=loss] canvas", timeout=60_000)
        expect(page.locator("#epochs tbody tr").nth(2)).to_be_attached(timeout=60_000)
        expect(page.locator(".state")).to_have_text("finished", timeout=120_000)
        expect(page.locator("#epochs tbody tr")).to_have_count(12, timeout=60_000)
        expect(page.locator("#log")).to_contain_text("best epoch")
        assert training.wait() == 0
        for one in watchers:
            one.join(60)
        assert [12 in one.epochs for one in watchers] == [True] * 50
    subprocess.run([*command, "alone"], stderr=subprocess.DEVNULL, check=True)
    weights = [sorted((runs_dir / name / "checkpoints").glob("step-*/model.safetensors")) for name in ("live", "alone")]
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]] != []


def test_a_run_deleted_while_it_is_shown(chromium: Browser, served: Served, runs_dir: Path) -> None:
    import shutil

    write_run(runs_dir / "doomed")
    served.wait_for(lambda: served.get(f"/run/{id_of('doomed')}").status == 200)
    with opened(chromium, served) as page:
        page.goto(f"/run/{id_of('doomed')}")
        page.wait_for_selector("[data-chart=accuracy] canvas")
        shutil.rmtree(runs_dir / "doomed")
        expect(page.locator("#gone")).to_be_visible(timeout=30_000)


def test_a_hostile_name_runs_nothing(chromium: Browser, served: Served, runs_dir: Path) -> None:
    """Fault 50: markup in a name, a note, a tag and a log stays text, after live updates too."""
    hostile = '<img src=x onerror="window.hit=1">'
    run = write_run(runs_dir / "given", notes=(hostile,), tags=[hostile], model="lenet")
    run = run.rename(run.with_name(hostile))
    (run / "log.txt").write_text(f"{hostile}\n")
    served.wait_for(lambda: served.get(f"/run/{id_of(hostile)}").status == 200)
    with opened(chromium, served) as page:
        page.goto(f"/run/{id_of(hostile)}")
        expect(page.locator("h1")).to_have_text(hostile)
        with (run / "log.txt").open("a") as log:
            log.write(f"{hostile} again\n")
        expect(page.locator("#log")).to_contain_text(f"{hostile} again", timeout=30_000)
        page.goto("/?q=onerror&group=tag")
        expect(page.locator("tbody th")).to_have_text([hostile])
        assert page.evaluate("window.hit") is None
