"""The file that a report is: whole, closed to the outside, escaped, and about what is there. Real runs, real files."""

import base64
import hashlib
import json
import math
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import firstlight as fl
from firstlight.errors import ConfigError, RunNotFoundError
from firstlight.metrics.evaluation import wilson_interval
from firstlight.tracking.run import load_run
from firstlight.tracking.writer import add_note
from tests.reports.conftest import HOSTILE, Parsed, leave_inspection, report_of

WRITE_UP = 9
"""Questions of the write-up."""


def test_a_run_says_what_was_run_and_what_came_of_it(looked_at: Path) -> None:
    """D22, A6: config, environment, seeds, command, figures with their interval, curves, tables, notes, mistakes, questions."""
    found, page = report_of(looked_at)
    run = load_run(looked_at)
    assert found["report"] == str(looked_at / "report.html")
    assert found["num_bytes"] == (looked_at / "report.html").stat().st_size
    assert found["chapters"][0]["sections"] == page.sections[:-WRITE_UP]
    assert page.sections[:-WRITE_UP] == [
        "Result",
        "Curves",
        "Evaluation (validation images)",
        "Mistakes (validation images)",
        "Notes",
        "What was run",
        "Not looked at yet",
    ]
    low, high = wilson_interval(round(run.summary["val_accuracy"] * 144), 144)
    assert f"{run.summary['val_accuracy']:.4f}" in page.words
    assert f"95 % interval {low:.4f} to {high:.4f}, 144 images" in page.words
    assert "opened once" in page.words and "0.9000" in page.words
    assert "the lamp was too warm" in page.words
    assert "5 of 144 images are mistakes" in page.words
    assert yaml.safe_load((looked_at / "config.yaml").read_text()) == yaml.safe_load(code_of(page, "config.yaml"))
    facts = (run.info["environment"]["packages"]["torch"], run.info["data"]["source"], "seed 0", str(run.info["data"]["val_hash"]))
    assert [fact for fact in facts if fact not in page.words] == []


def code_of(page: Parsed, heading: str) -> str:
    """Return the text of the block of code below a heading."""
    import html

    block = re.search(rf"<h4>{re.escape(heading)}</h4>\s*<pre>(.*?)</pre>", page.text, flags=re.DOTALL)
    assert block is not None
    return html.unescape(block.group(1))


def test_nothing_is_loaded_from_outside(looked_at: Path, study_page: tuple[dict[str, Any], Parsed]) -> None:
    """F8, F5: pictures lie in the page, links stay in it, the policy lets nothing else in, and only our script runs."""
    for page in (report_of(looked_at)[1], study_page[1]):
        assert {urlsplit(source).scheme for source in page.sources} == {"", "data"}
        assert all(source.startswith("#") for source in page.sources if not source.startswith("data:image/"))
        ids = {value for _, name, value in page.attributes if name == "id"}
        assert {source[1:] for source in page.sources if source.startswith("#")} <= ids
        assert not {"link", "iframe", "object", "embed", "base", "form", "audio", "video"} & page.tags.keys()
        assert "url(" not in page.text and "@import" not in page.text
        policy = next(value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "default-src" in value)
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
        assert (page.tags["script"], page.tags["style"]) == (1, 1)
        for tag in ("script", "style"):
            content = re.search(rf"<{tag}>(.*?)</{tag}>", page.text, flags=re.DOTALL)
            assert content is not None
            digest = base64.b64encode(hashlib.sha256(content.group(1).encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]


def test_all_that_is_read_is_text(looked_at: Path, tmp_path: Path) -> None:
    """Fault 50: markup in a note, a name, a config, a class, a finding and a table stays text."""
    hostile = looked_at.with_name("<script>alert('x')<!--")
    looked_at.rename(hostile)
    add_note(load_run(hostile), HOSTILE)
    leave_inspection(hostile, "health", says=HOSTILE, checks=[{HOSTILE: HOSTILE, "ok": True}], **{HOSTILE: {HOSTILE: 1}})
    info = json.loads((hostile / "run.json").read_text())
    info["data"]["class_names"][0] = info["environment"]["cpu"] = info["environment"]["command"][0] = HOSTILE
    (hostile / "run.json").write_text(json.dumps(info))
    config = (hostile / "config.yaml").read_text()
    (hostile / "config.yaml").write_text(config.replace("quickstart", json.dumps(HOSTILE)))
    plain = report_of(hostile, out=tmp_path / "plain.html")[1]
    assert plain.tags["script"] == 1 and "onerror" not in {name for _, name, _ in plain.attributes}
    assert plain.tags["img"] == len([source for source in plain.sources if source.startswith("data:image/")])
    assert plain.words.count(HOSTILE) >= 9
    assert "<script>alert('x')<!--" in plain.words


def test_numbers_that_broke_are_named(run: Path) -> None:
    """Fault 50: null of a row, and NaN and infinities in a file that another program wrote."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "epoch" and row["epoch"] == 2:
            row["val_loss"] = row["train_loss"] = None
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "inspection").mkdir()
    broken = {"what": "memory", "says": "x", "peak": math.nan, "rows": [{"a": math.inf}, {"a": None}], "files": []}
    (run / "inspection" / "memory-val.json").write_text(json.dumps(broken))
    page = report_of(run)[1]
    assert page.words.count("not finite") == 4
    assert not re.search(r"\b(nan|inf|NaN|Infinity|None)\b", page.words)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "run.json").write_bytes(b"\x00\xff{"),
        lambda run: (run / "run.json").unlink(),
        lambda run: (run / "config.yaml").write_text("[1, 2"),
        lambda run: (run / "run.json").write_text('{"state": "finished", "summary": 3}'),
        lambda run: [path.unlink() for path in run.iterdir() if path.is_file() and path.name != "metrics.jsonl"],
    ],
    ids=["bytes", "no run.json", "config", "kinds", "only rows"],
)
def test_a_damaged_run_is_shown_as_such_and_the_others_are_fine(run: Path, trained: Path, damage: object, tmp_path: Path) -> None:
    """Fault 50: the page is made, names what is wrong, and holds the whole run beside it."""
    bad = shutil.copytree(run, run.with_name("bad"))
    damage(bad)  # type: ignore[operator]
    found, page = report_of(bad, trained, out=tmp_path / "both.html")
    assert [chapter["chapter"] for chapter in found["chapters"]] == ["2 runs", "bad", "first"]
    assert "this run folder is damaged" in page.words
    assert f"{load_run(trained).summary['val_accuracy']:.4f}" in page.words
    assert f"{bad} is damaged and left out here" in page.words


def test_no_damage_of_a_file_stops_a_report(looked_at: Path, tmp_path: Path) -> None:
    """Fault 50: 12 times a value somewhere in run.json, a row or a finding is replaced by one of another kind, or a file is cut."""
    random.seed(0)
    for trial in range(12):
        run = shutil.copytree(looked_at, tmp_path / f"runs{trial}" / "first")
        files = [run / "run.json", run / "metrics.jsonl", run / "inspection" / "mistakes-val.json", run / "evaluation-val.json"]
        path = random.choice(files)
        text = path.read_text()
        if trial % 3 == 0:
            path.write_text(text[: random.randrange(len(text))])
        else:
            values = [match.span(1) for match in re.finditer(r': ("[^"]*"|[-\d.]+|\[|\{|null)', text)]
            start, end = random.choice(values)
            path.write_text(text[:start] + random.choice(["null", '"x"', "[[1], {}]", "{}", "-1e999", "true", "7"]) + text[end:])
        found, _ = report_of(run)
        assert found["num_bytes"] > 10_000


def test_a_study_of_100_trials(study_of_100: Path, study_page: tuple[dict[str, Any], Parsed]) -> None:
    """F8: the answer, pictures, both tables with every row, what was asked, the best run; below 5 MB."""
    found, page = study_page
    assert found["num_bytes"] < 5_000_000
    kinds = [(chapter["kind"], chapter["sections"][0]) for chapter in found["chapters"]]
    assert kinds == [("Study", "Answer"), ("Best run", "Result")]
    answer = json.loads((study_of_100 / "answer.json").read_text())
    assert [line for line in (*answer["findings"], *answer["warnings"]) if line not in page.words] == []
    trials = page.text[page.text.index("<h3>Trials</h3>") :]
    assert trials[: trials.index("</table>")].count("<tr>") == 100 + 1
    points = page.text[page.text.index("<h3>Points") :]
    assert points[: points.index("</table>")].count("<tr>") == 50 + 1
    num_pictures = len(list(study_of_100.glob("*.png")))
    assert num_pictures >= 3 and page.tags["img"] == num_pictures + 2
    again = yaml.safe_load(code_of(page, "study.yaml"))
    assert (again["space"], again["seeds"]) == (json.loads((study_of_100 / "study.json").read_text())["space"], 2)


def test_the_study_in_a_report_can_be_repeated(study_of_100: Path, study_page: tuple[dict[str, Any], Parsed], tmp_path: Path) -> None:
    """The study.yaml of the page is the same study, point by point."""
    from firstlight.studies.study import load_study

    (tmp_path / "study.yaml").write_text(code_of(study_page[1], "study.yaml"))
    again, known = load_study(tmp_path / "study.yaml"), json.loads((study_of_100 / "study.json").read_text())
    assert again.to_json() == known


def test_several_runs_side_by_side(trained: Path, tmp_path: Path) -> None:
    """D14, D22: one picture of all curves, figures with intervals, the settings that differ, image by image where both were asked."""
    other = shutil.copytree(trained, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("seed: 0", "seed: 7", 1))
    found, page = report_of(trained, other, out=tmp_path / "page.html")
    assert found["chapters"][0] == {"chapter": "2 runs", "kind": "Comparison of", "sections": ["Figures", "Curves", "Settings that differ"]}
    assert [chapter["chapter"] for chapter in found["chapters"][1:]] == ["first", "other"]
    assert "All were validated on the same images." in page.words
    settings = page.text[page.text.index("<h3>Settings that differ</h3>") :]
    assert re.findall(r'data-value="([^"]*)"', settings[: settings.index("</table>")]) == ["first", "0", "other", "7"]


def test_a_hundred_runs_make_a_page_that_opens_at_once(trained: Path, tmp_path: Path) -> None:
    """Issue 6: below 5 MB; of more than twelve runs the best have a chapter, and all have a line."""
    runs = [shutil.copytree(trained, tmp_path / f"run{number:03}") for number in range(100)]
    found, page = report_of(*runs, out=tmp_path / "page.html")
    assert found["num_bytes"] < 5_000_000
    assert len(found["chapters"]) == 1 + 12
    assert "12 of 100 runs have a chapter" in page.words
    figures = page.text[page.text.index("<h3>Figures</h3>") :]
    assert figures[: figures.index("</table>")].count("<tr>") == 101


def test_what_was_written_survives_a_new_report(run: Path) -> None:
    """D22: the answers in the page are taken over when it is made again, escaped."""
    report_of(run)
    path = run / "report.html"
    text = path.read_text()
    place = text.index(">", text.index('data-answer="next"')) + 1
    path.write_text(text[:place] + "More images.<br>Then <b>dropout</b> &lt;0.3&gt;." + text[place:])
    found, page = report_of(run)
    assert found["answers"] == ["next"]
    assert "More images.\nThen dropout <0.3>." in page.words
    assert report_of(run)[1].words.count("More images.\nThen dropout <0.3>.") == 1


def test_a_moved_run_still_shows_its_pictures(looked_at: Path, tmp_path: Path) -> None:
    """Paths in old JSON files no longer hold; the pictures lie beside them."""
    before = report_of(looked_at)[1].tags["img"]
    moved = looked_at.rename(tmp_path / "elsewhere")
    assert report_of(moved)[1].tags["img"] == before


def test_pictures_come_from_the_run_alone(run: Path, tmp_path: Path) -> None:
    """Fault 50: a file named by a hostile JSON is looked for beside it, and shown only if it is a picture."""
    (tmp_path / "secret.png").write_text("secret words")
    (run / "inspection").mkdir()
    names = [str(tmp_path / "secret.png"), "../../../secret.png", "inner.png", "a\0b.png"]
    (run / "inspection" / "inner.png").write_text("secret words")
    (run / "inspection" / "data-train.json").write_text(json.dumps({"what": "data", "says": "hm", "files": names}))
    page = report_of(run)[1]
    assert base64.b64encode(b"secret words").decode()[:12] not in page.text
    assert "inner is missing, damaged" in page.words and "secret is missing, damaged" in page.words


@pytest.mark.parametrize(
    ("targets", "out", "says"),
    [
        (["nowhere"], None, "no run and no study at nowhere; `firstlight runs` lists the runs there are"),
        (["first"], "report.pdf", "--out report.pdf is no page; end it in .html"),
        ([], None, "report needs a run or a study"),
    ],
)
def test_a_mistake_is_one_line(run: Path, targets: list[str], out: str | None, says: str) -> None:
    with pytest.raises((ConfigError, RunNotFoundError), match=re.escape(says)) as caught:
        fl.report(*targets, out=out, runs_dir=run.parent)
    assert "\n" not in str(caught.value)


LOOK = """
import sys
from firstlight.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def test_the_command_prints_one_object_and_needs_no_torch(run: Path, study_of_100: Path, tmp_path: Path) -> None:
    """DESIGN: reports import no torch, for a run and for a study; --json is one object."""
    words = ["report", "first", str(study_of_100), "--runs-dir", str(run.parent), "--out", str(tmp_path / "page.html"), "--json"]
    done = subprocess.run([sys.executable, "-c", LOOK, *words], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("False"), done.stderr
    found = json.loads(done.stdout)
    assert found["files"] == [found["report"]] == [str(tmp_path / "page.html")]
    assert [chapter["kind"] for chapter in found["chapters"]] == ["Study", "Best run", "Run"]
    assert found["seconds"] > 0
