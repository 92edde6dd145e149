"""The write-up at the end of a report: the course's questions (D22), and the answers that a saved page holds already."""

from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

from firstlight.reports.page import Question

QUESTIONS = {
    "question": "What did you want to find out?",
    "changed": "What did you change, and why?",
    "hyperparameters": "Which hyperparameters did you choose, and how?",
    "curves": "What do the curves show: does it underfit or overfit, and where would you stop?",
    "mistakes": "Which images does it get wrong, and why?",
    "sure": "How sure is the network, and is it right to be?",
    "chance": "How much of the result may be chance?",
    "speed": "What limits the speed, and what would make it faster?",
    "next": "What would you do next?",
}
"""What courses ask, by the key under which an answer is kept."""
MAX_PAGE = 50_000_000
"""Bytes of a page that is searched for answers."""


def questions(hints: Mapping[str, str], answers: Mapping[str, str]) -> list[Question]:
    """Return the questions, each with figures to begin from and with what was answered before."""
    return [Question(key=key, text=text, hint=hints.get(key, ""), answer=answers.get(key, "")) for key, text in QUESTIONS.items()]


def answers_in(path: Path) -> dict[str, str]:
    """Return what was written into a saved report, by key; nothing where no report stands there."""
    try:
        if path.stat().st_size > MAX_PAGE:
            return {}
        page = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    reader = _Answers()
    reader.feed(page)
    return {key: text for key, parts in reader.found.items() if (text := "".join(parts).strip())}


class _Answers(HTMLParser):
    """Collects the text of elements that have `data-answer`, with line breaks where a browser shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._parts: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an answer, or a line of one."""
        key = dict(attrs).get("data-answer")
        if self._parts is None and key is not None:
            self._parts = self.found.setdefault(key, [])
            self._open = [tag]
        elif self._parts is not None and tag == "br":
            self._parts.append("\n")
        elif self._parts is not None:
            if tag in ("div", "p") and self._parts:
                self._parts.append("\n")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """End an answer where its own element ends."""
        if self._parts is not None and tag in self._open:
            while self._open.pop() != tag:
                pass
            if not self._open:
                self._parts = None

    def handle_data(self, data: str) -> None:
        """Take in text of an answer."""
        if self._parts is not None:
            self._parts.append(data)
