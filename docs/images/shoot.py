"""Photograph MLflow's chart page with Chromium: `shoot.py URL PICTURE.png CURVES`.

Speaks to the browser over a pipe (--remote-debugging-pipe), so that no driver is needed: the
page loads in real time, its side panels are put away, and the picture is taken once every
curve is drawn.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TIDY = """(() => {
  document.querySelector('[data-component-id="mlflow.assistant.chat_panel.close"]')?.click();
  document.querySelector('[aria-label="Toggle sidebar"]')?.click();
  // The curves first: fold the section above them.
  [...document.querySelectorAll('[data-testid=experiment-view-compare-runs-section-header]')]
    .filter(e => e.textContent.startsWith('cost')).forEach(e => e.parentElement.click());
  const style = document.createElement('style');
  style.textContent = '.modebar, [data-component-id*="assistant"] { display: none !important }';
  document.head.append(style);
})()"""
DRAWN = """Math.min(...['curve/robustness', 'curve/uniqueness'].map(name => new Set(
  [...document.querySelectorAll('[data-testid=experiment-view-compare-runs-card]')]
    .filter(card => card.textContent.startsWith(name))
    .flatMap(card => [...card.querySelectorAll('path.js-line')].map(line => line.style.stroke))
).size))"""
"""How many curves, told by their colours, the emptier one of the two charts shows."""

PLUMBING = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads from descriptor 3 and writes to 4."""


class Browser:
    """A headless Chromium at the other end of a pipe."""

    def __init__(self, profile: str, size: str) -> None:
        there, self.write = os.pipe()
        self.read, back = os.pipe()
        flags = ("--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
                 "--disable-background-networking --disable-component-update --disable-sync "
                 f"--remote-debugging-pipe --hide-scrollbars --window-size={size}")  # fmt: skip
        command = ["chromium", *flags.split(), f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PLUMBING, str(there), str(back), *command],
            pass_fds=(there, back), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        self.number, self.rest = 0, b""
        self.session: str | None = None
        page = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=page, flatten=True)
        self.session = attached["sessionId"]

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Call one method of the DevTools protocol."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.read, 1 << 20)
                if not more:
                    raise RuntimeError("expected an answer from chromium, but it ended")
                self.rest += more
            line, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self.number:
                result: dict[str, Any] = answer["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript in the page."""
        return self("Runtime.evaluate", expression=script)["result"].get("value")


def shoot(url: str, picture: Path, curves: int = 1, size: str = "1700,1060") -> tuple[int, str]:
    """Take the picture once both charts show `curves` curves, or after a minute.

    Returns how many they show, and the page's text.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile, size)
        try:
            browser("Page.navigate", url=url)
            until = time.monotonic() + 60
            while (browser.run(DRAWN) or 0) < curves and time.monotonic() < until:
                time.sleep(0.5)
            browser.run(TIDY)
            time.sleep(4)
            image = browser("Page.captureScreenshot", format="png")["data"]
            picture.write_bytes(base64.b64decode(image))
            return int(browser.run(DRAWN) or 0), str(browser.run("document.body.innerText"))
        finally:
            browser.process.terminate()
            browser.process.wait()


if __name__ == "__main__":
    drawn, _ = shoot(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    print(f"{drawn} curves in each chart")
