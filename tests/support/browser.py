"""Pages in a headless Chromium: what a browser, and axe-core in it, have to say about a page.

The browser is the system's, found in the path or by ``REVIEWGEN_CHROMIUM``; tests that need it are
skipped where there is none.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    return os.environ.get("REVIEWGEN_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )


def why_none() -> str | None:
    """Return why no page can be opened here; None if one can."""
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return (
            "playwright and axe-playwright-python are not installed: pip install"
            " 'reviewgen[browser]'"
        )
    return (
        None
        if find_chromium()
        else f"no browser: none of {', '.join(NAMES)} in the path, nor REVIEWGEN_CHROMIUM"
    )


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


def problems(browser: Any, file: Path, width: int, scheme: str) -> list[str]:
    """Return what is wrong with a page at a width: overflow, console messages, requests elsewhere,
    violations of axe-core.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    heard = []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            heard.append(f"request: {request.url}") if request.url != file.as_uri() else None
        ),
    )
    page.goto(file.as_uri())
    sizes = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    heard += [f"{sizes[0]} pixels wide in a window of {sizes[1]}"] if sizes[0] > sizes[1] else []
    heard += violations(page)
    context.close()
    return heard


def violations(page: Any) -> list[str]:
    """Return the violations that axe-core finds."""
    import axe_playwright_python

    page.evaluate(
        (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    )
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in page.evaluate("axe.run()")["violations"]
    ]
