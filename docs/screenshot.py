"""Take the README's picture of the page: ``python docs/screenshot.py URL FILE`` while `ndtwin up` runs.

Needs the development extra (playwright) and Debian's Chromium.
"""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright


def main(url: str, file: str) -> None:
    """Open the page, wait for its first window, take the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.locator("[data-path]").first.wait_for(timeout=120_000)
        page.wait_for_timeout(2_000)  # fonts, charts
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
