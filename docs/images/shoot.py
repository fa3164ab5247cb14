"""Photograph pages with Chromium.

    shoot.py URL PICTURE.png CURVES     MLflow's chart page, once it shows so many methods
    shoot.py URL PICTURE.png overlay    MLflow's page of both curves of all methods
    shoot.py URL PICTURE.png            disguises by methods on a page of `fpbench report`, twice

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
OVERLAID = "document.querySelectorAll('path.js-line').length"
PAGE = "document.querySelectorAll('.chart .main-svg').length"

DISGUISES = """(() => {
  const style = document.createElement('style');
  style.textContent = '.modebar { display: none !important }';
  document.head.append(style);
  document.querySelectorAll('h2')[2].scrollIntoView(); // matching rates by kind of suspect
})()"""

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


def photograph(
    url: str, picture: Path, ready: str, tidy: str = "", size: str = "1700,1060",
    dark: bool = False, patience: float = 60,
) -> tuple[int, str]:  # fmt: skip
    """Take the picture once the number that the script `ready` gives is not 0, or patience ends.

    Returns that number, and the page's text.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile, size)
        try:
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            browser("Emulation.setEmulatedMedia", features=[scheme])
            browser("Page.navigate", url=url)
            until = time.monotonic() + patience
            while not browser.run(ready) and time.monotonic() < until:
                time.sleep(0.5)
            browser.run(tidy)
            time.sleep(4)
            image = browser("Page.captureScreenshot", format="png")["data"]
            picture.write_bytes(base64.b64decode(image))
            return int(browser.run(ready) or 0), str(browser.run("document.body.innerText"))
        finally:
            browser.process.terminate()
            browser.process.wait()


def shoot(url: str, picture: Path, curves: int = 1, patience: float = 60) -> tuple[int, str]:
    """MLflow's chart page, once both charts show `curves` curves: how many, and the page's text."""
    ready = f"(() => {{ const n = {DRAWN}; return n >= {curves} ? n : 0; }})()"
    return photograph(url, picture, ready, TIDY, patience=patience)


if __name__ == "__main__":
    address, picture = sys.argv[1], Path(sys.argv[2])
    if len(sys.argv) > 3:
        shown = (
            photograph(address, picture, OVERLAID, TIDY, size="1500,580", patience=600)
            if sys.argv[3] == "overlay"
            else shoot(address, picture, int(sys.argv[3]), patience=600)
        )
        print(f"{shown[0]} curves")
    else:
        for scheme in ("light", "dark"):
            file = picture.with_stem(f"{picture.stem}-{scheme}")
            dark = scheme == "dark"
            photograph(address, file, PAGE, DISGUISES, "1240,790", dark=dark, patience=600)
