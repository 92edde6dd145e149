"""The lock in a real browser, against a real server: digits drawn with the mouse and with a finger open it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.test_lock_page import DRAWN


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where `firstlight lock` says that its page is."""
    places = {"FIRSTLIGHT_SETTINGS": str(tmp_path / "settings"), "FIRSTLIGHT_CACHE": str(tmp_path), "FIRSTLIGHT_RUNS": str(tmp_path)}
    command = [sys.executable, "-m", "firstlight", "lock", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **places})
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.terminate()
    assert server.wait(20) == 0
    server.stdout.close()


def draw(page: Page, place: int, digit: str) -> None:
    """Draw a digit with the mouse, and hold against the pad how many strokes it has."""
    box = page.locator(".pad .drawing").nth(place).bounding_box()
    assert box is not None
    for stroke in DRAWN[digit]:
        points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def set_code(page: Page, code: str) -> None:
    page.get_by_label("Code").fill(code)
    page.get_by_label("Again").fill(code)
    page.get_by_role("button", name="Set the code").click()
    expect(page.locator("#says")).to_have_text("The code is set. Draw it to open the lock.")


def test_four_drawn_digits_open_the_lock(chromium: Browser, address: str) -> None:
    """E13: set a code, draw it, it opens; an incomplete one and a wrong one do not; undo and clear; no error, no other host."""
    page = chromium.new_page(viewport={"width": 1600, "height": 1000})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.goto(address)
    says, lock, button = page.locator("#says"), page.locator("#lock"), page.get_by_role("button", name="Open", exact=True)
    expect(says).to_have_text("No code is set yet: set one below.")
    set_code(page, "1074")
    draw(page, 0, "1")
    draw(page, 2, "7")
    button.click()
    expect(says).to_have_text("Draw a digit on pads 2, 4 first.")
    draw(page, 1, "0")
    draw(page, 3, "1")
    button.click()
    expect(says).to_have_text("1071 is not the code.")
    expect(lock).to_have_attribute("data-state", "closed")
    page.get_by_role("button", name="clear pad 4").click()
    expect(page.get_by_role("button", name="undo the last stroke on pad 4")).to_be_disabled()
    draw(page, 3, "4")
    draw(page, 3, "1")
    page.get_by_role("button", name="undo the last stroke on pad 4").click()
    button.click()
    expect(says).to_have_text("1074 is the code: the lock is open.")
    expect(lock).to_have_attribute("data-state", "open")
    expect(page.locator(".read").nth(2)).to_contain_text("read as 7 (")
    page.get_by_role("button", name="Clear all").click()
    expect(lock).to_have_attribute("data-state", "closed")
    for _ in range(5):
        for place, digit in enumerate("1111"):
            draw(page, place, digit)
        button.click()
        expect(says).to_contain_text("1111 is not the code.")
    expect(says).to_contain_text("5 wrong codes in a row: wait 2 s.")
    expect(page.locator("#submit")).to_be_disabled()
    expect(page.locator("#submit")).to_have_text("Open", timeout=10_000)
    assert complaints == [] and asked == {address.split("/")[2]}


def test_a_finger_on_a_phone_in_the_dark(chromium: Browser, address: str) -> None:
    """E13: 400 pixels wide, touch, dark: nothing runs over the edge, and the finger draws."""
    context = chromium.new_context(viewport={"width": 400, "height": 850}, has_touch=True, color_scheme="dark")
    page = context.new_page()
    page.goto(address)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400
    set_code(page, "1111")
    for place in range(4):
        pad = page.locator(".pad .drawing").nth(place)
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        assert box is not None
        finger = context.new_cdp_session(page)
        x, y = box["x"] + box["width"] / 2, box["y"] + 0.15 * box["height"]
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for step in range(1, 8):
            finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y + step * 0.1 * box["height"]}]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("#says")).to_have_text("1111 is the code: the lock is open.")
    context.close()
