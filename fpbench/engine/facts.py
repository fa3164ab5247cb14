"""What a result depends on besides the suite: versions, devices."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

import torch


@cache
def versions() -> dict[str, str]:
    """Of what a model's bits depend on most."""
    names = ("fpbench", "torch", "numpy", "scikit-learn", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


@cache
def everything_installed() -> dict[str, str]:
    """Every distribution of this environment and its version."""
    # Each look at a distribution's name or version would read its file anew.
    about = [dist.metadata for dist in importlib.metadata.distributions()]
    found = {each["Name"]: each["Version"] for each in about}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


@cache
def device_name(device: str) -> str:
    """What a device is called in results: "cpu", or the GPU's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return device
