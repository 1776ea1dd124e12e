"""The demo with its time; writes benchmarks/results/demo.json and, where there is a Chromium, docs/demo.png."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time

from record import ROOT, write

import pocketzoo
from pocketzoo.core.typed import to_plain

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        result = pocketzoo.demo(name)
        seconds = time.perf_counter() - start
        write("demo", {"seconds": seconds, "rows": to_plain(result.rows)})
        browser = next((path for b in BROWSERS if (path := shutil.which(b))), None)
        if browser is None:
            print("no Chromium: docs/demo.png stays as it is")
            return
        picture = ROOT / "docs" / "demo.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--hide-scrollbars", "--window-size=1280,1180", f"--screenshot={picture}"]
        subprocess.run([*command, result.places["report"].resolve().as_uri()], check=True, capture_output=True)
        print(f"wrote {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
