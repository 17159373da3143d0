"""Measures the tokens per second of a page from `smt-hf export --format web`, in headless Chromium.

    smt-hf export runs/demo/dmt --format web --dtype int8 --output_dir exports/page
    python scripts/benchmark_page.py exports/page --screenshot page.png

The page itself shows how many tokens it reads and writes per second, including the pictures of the memory. Needs playwright and a
Chromium.
"""

import argparse
import shutil
import statistics
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


class Quiet(SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *words):
        pass


def main() -> None:
    """Prints the rates of a few visits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the exported page")
    parser.add_argument("--num_tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", default="Once upon a time")
    parser.add_argument("--screenshot", help="file for a picture of the page after the last round")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    rates = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=options.folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1200, "height": 800})
            page.set_default_timeout(300_000)
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            page.wait_for_selector("body[data-busy='0']")
            # Texts may end early: keep writing until there are enough tokens.
            page.evaluate(f"document.getElementById('length').value = {options.num_tokens}")
            for _ in range(options.rounds):
                page.fill("#words", options.words)
                page.click("#write")
                page.wait_for_selector("body[data-busy='0']")
                rates.append(float(page.get_attribute("#speed", "data-value")))
                print(
                    f"{page.get_attribute('#tokens', 'data-value')} tokens read, {rates[-1]:.0f} a second", flush=True
                )
            if options.screenshot:
                page.screenshot(path=options.screenshot)
            browser.close()
        server.shutdown()
    print(f"median {statistics.median(rates):.0f} tokens per second, {min(rates):.0f} to {max(rates):.0f}")


if __name__ == "__main__":
    main()
