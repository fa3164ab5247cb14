"""The sandbox: a separate process with limits, for files that are not trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ..api.errors import ResourceError
from .tensor_layout import RefusedError

ROOM = 2 * 2**30
"""Bytes of memory for the libraries and their work, on top of what the file needs."""

SECONDS = 120
"""Seconds that a job may take, of processor time and of real time; most take five."""


def run_in_sandbox(
    job: str, raw: bytes, rest: bytes = b"", *, memory: int = 0, seconds: int = SECONDS,
    **order: Any,
) -> bytes:  # fmt: skip
    """Run a job of `fpbench.owner.sandbox_child` on a file's bytes; return its answer.

    memory:  bytes of memory for the file's content, on top of `ROOM`.
    seconds: the job is stopped after this time.

    Raises RefusedError if the job refuses the bytes, ResourceError if its process dies or takes
    too long.
    """
    limits = {"job": job, "bytes": len(raw), "memory": ROOM + memory, "seconds": seconds}
    path = os.pathsep.join(p for p in sys.path if p)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fpbench.owner.sandbox_child"],
            input=json.dumps({**limits, **order}).encode() + b"\n" + raw + rest,
            capture_output=True, timeout=seconds, check=False,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ResourceError(
            f"expected the model file to be read in {seconds} s, it took longer"
        ) from None
    messages = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    if done.returncode == 2 and messages[-1].startswith("refused: "):
        raise RefusedError(messages[-1].removeprefix("refused: "))
    if done.returncode:
        cause = f"signal {-done.returncode}" if done.returncode < 0 else messages[-1][:200]
        raise ResourceError(
            f"the process that read the model file, with {(ROOM + memory) / 1e9:.1f} GB of memory, "
            f"died ({cause}); only that process was affected"
        )
    return done.stdout
