"""Photograph MLflow's chart page with Chromium: `python docs/images/shoot.py URL PICTURE.png`.

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
DRAWN = "document.querySelectorAll('.scatterlayer .trace path.js-line').length"


class Browser:
    """A headless Chromium at the other end of a pipe."""

    def __init__(self, profile: str, size: str) -> None:
        there, self.write = os.pipe()
        self.read, back = os.pipe()
        flags = ("--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
                 "--disable-background-networking --disable-component-update --disable-sync "
                 f"--remote-debugging-pipe --hide-scrollbars --window-size={size}")  # fmt: skip
        # The browser reads from descriptor 3 and writes to 4.
        plumbing = f'exec chromium {flags} --user-data-dir="$0" 3<&{there} 4>&{back}'
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", plumbing, profile], pass_fds=(there, back), stderr=subprocess.DEVNULL
        )
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
                self.rest += os.read(self.read, 1 << 20)
            line, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self.number:
                result: dict[str, Any] = answer["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript in the page."""
        return self("Runtime.evaluate", expression=script)["result"].get("value")


def shoot(url: str, picture: Path, size: str = "1700,1060") -> int:
    """Take the picture; return how many curves are on it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile, size)
        try:
            browser("Page.navigate", url=url)
            time.sleep(12)
            browser.run(TIDY)
            time.sleep(6)
            image = browser("Page.captureScreenshot", format="png")["data"]
            picture.write_bytes(base64.b64decode(image))
            return int(browser.run(DRAWN) or 0)
        finally:
            browser.process.terminate()
            browser.process.wait()


if __name__ == "__main__":
    print(shoot(sys.argv[1], Path(sys.argv[2])), "curves drawn")
