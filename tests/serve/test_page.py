"""The page in a real browser: search, watch the moment, keys, a file to search with, links."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

pytestmark = pytest.mark.slow
for package in ("lancedb", "fastapi", "uvicorn", "playwright", "axe_playwright_python"):
    pytest.importorskip(package, reason='needs the extras "serve" and "dev"')
CHROMIUM = Path(os.environ.get("VATT_CHROMIUM", "/usr/bin/chromium"))
if not CHROMIUM.exists():
    pytest.skip(f"needs Chromium ({CHROMIUM}, or VATT_CHROMIUM)", allow_module_level=True)

import uvicorn  # noqa: E402
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402

from tests.serve.film_library import film_library  # noqa: E402
from vatt.serve.app import ServerSettings, make_app  # noqa: E402

QUIET = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update",
    "--disable-default-apps", "--disable-sync", "--no-first-run", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage",
]  # fmt: skip
WAIT_MS = int(os.environ.get("VATT_WAIT_MS", "120000"))  # a busy machine
TIME = "document.querySelector('#video').currentTime"


@contextmanager
def served(library, cache: Path):
    """The address of the library's page."""
    settings = ServerSettings(
        hosts=("127.0.0.1",), token=None, cache=cache, copies_bytes=10**8, upload_bytes=10**7,
        workers=2,
    )  # fmt: skip
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(library, settings), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def until(page, true: str) -> None:
    """Wait for an expression; the page's policy forbids the browser's own way to do so."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(true):
        assert time.monotonic() < end, true
        page.wait_for_timeout(50)


def barriers(page) -> list[str]:
    """What axe-core finds that a screen reader or the keyboard stumbles over."""
    return [
        f"{one['id']}: {one['nodes'][0]['html']}" for one in Axe().run(page).response["violations"]
    ]


def drop(page, path: Path) -> None:
    """Drag a file over the page, and let go."""
    files = page.evaluate_handle(
        """([name, numbers]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(numbers)], name));
            return files;
        }""",
        [path.name, list(path.read_bytes())],
    )
    for event in ("dragenter", "dragover"):
        page.dispatch_event("body", event, {"dataTransfer": files})
    expect(page.locator("#drop")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": files})
    expect(page.locator("#drop")).to_be_hidden()


@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_moments_are_searched_watched_and_linked_to(tmp_path):
    library = film_library(tmp_path)
    ids = {one.title: one.file_id for one in library.files()}
    said: list[str] = []
    asked: list[str] = []
    with served(library, tmp_path / "cache") as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))

        page.goto(address)
        expect(page.locator("#facts")).to_have_text("3 files, 33 seconds")
        assert not barriers(page)
        page.keyboard.press("/")
        page.keyboard.type("green door")
        page.keyboard.press("Enter")
        hits = page.locator(".hit")
        expect(hits.first).to_be_visible()
        expect(page.locator("#status")).to_contain_text("best first")
        assert "?q=green+door" in page.url

        # Keys: to the first hit, to the next one, play, pause.
        page.keyboard.press("ArrowDown")
        expect(hits.first).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(hits.nth(1)).to_be_focused()
        page.keyboard.press("ArrowUp")
        assert not barriers(page)

        # A film that plays as it is begins at the moment.
        film = page.locator(".file", has=page.locator("h2", has_text="plays.mp4")).first
        film.locator(".hit").first.click()
        until(page, f"{TIME} > 0 && !document.querySelector('#video').paused")
        assert f"v={ids['plays.mp4']}" in page.url
        start = float(page.url.rpartition("t=")[2])
        assert page.evaluate(TIME) >= start
        page.keyboard.press("Space")
        until(page, "document.querySelector('#video').paused")
        page.keyboard.press("]")
        until(page, "document.querySelector('.hit[aria-current]') !== null")
        page.get_by_role("button", name="?").click()
        assert not barriers(page)
        page.get_by_role("button", name="?").click()

        # One that does not is shown through a copy.
        page.goto(f"{address}/?q=green+door&v={ids['does not play.avi']}&t=3.0")
        until(page, f"{TIME} >= 3 && document.querySelector('#video').videoWidth > 0")
        expect(page.locator("#play-note")).to_contain_text("A copy")
        page.keyboard.press("Escape")
        expect(page.locator("#player")).to_be_hidden()

        # More like this; a file to search with; words that nobody knows.
        page.get_by_role("button", name="Looks like this").first.click()
        expect(page.locator("#chips li")).to_have_count(1)
        expect(page.locator("#status")).to_contain_text("best first")
        drop(page, tmp_path / "films" / "plays.mp4")
        expect(page.locator("#chips li span").last).to_have_text("plays.mp4")
        page.locator("#chips button").last.click()
        page.set_input_files("#file", str(tmp_path / "films" / "plays.mp4"))
        expect(page.locator("#chips li span")).to_have_text("plays.mp4")
        expect(page.locator("#status")).to_contain_text("best first")
        page.locator("#chips button").click()
        assert not said  # nothing was wrong so far
        page.fill("#q", "blorb")
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("knows none of these words")
        assert all("400" in line for line in said)  # the browser's own line about it
        said.clear()

        # A film's name is text, whatever is in it.
        page.goto(f"{address}/?q=green+door")
        expect(page.locator("h2", has_text="silent <b>film.mp4").first).to_be_visible()
        page.get_by_role("button", name="Map").click()
        expect(page.locator("#status")).to_contain_text("The map shows 30 moments")
        page.locator("#points").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tip-words")).to_contain_text("0:00")
        assert not barriers(page)

        # Light, dark, and on a phone nothing is wider than the screen.
        page.get_by_role("button", name="Results").click()
        looks: list[tuple[str, int, Literal["light", "dark"]]] = [
            ("light", 1280, "light"),
            ("dark", 1280, "dark"),
            ("phone", 390, "light"),
        ]
        for name, width, scheme in looks:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert not barriers(page)
            page.screenshot(path=tmp_path / f"{name}.png")
        browser.close()
    assert not said
    assert all(url.startswith((address, "blob:")) for url in asked)  # nothing from elsewhere
