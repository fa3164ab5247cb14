"""The inputs of a request, as JSON numbers or as images."""

from __future__ import annotations

import base64
import io
from typing import Any

from torch import Tensor

from ..api.errors import InputError
from ..api.oracle import to_bytes
from .adapter import Adapter

QUALITY = 95
"""Of JPEG files, whose colours are not subsampled."""


def request_of(adapter: Adapter, x: Tensor, input_range: tuple[float, float]) -> dict[str, Any]:
    """Return httpx's arguments for a request with inputs (n, *input_shape)."""
    if adapter.send == "json":
        x = to_bytes(x, input_range) if adapter.pixels else x
        inputs: list[Any] = (
            x.movedim(1, -1) if adapter.layout == "channels_last" else x
        ).tolist()  # fmt: skip
    else:
        files = [_image(pixels, adapter) for pixels in to_bytes(x, input_range)]
        if adapter.send == "multipart":
            name, kind = f"query.{adapter.image}", f"image/{adapter.image}"
            return {"files": {adapter.field: (name, files[0], kind)}, "data": adapter.extra}
        inputs = [base64.b64encode(file).decode() for file in files]
    return {"json": {**adapter.extra, adapter.field: inputs[0] if adapter.single else inputs}}


def _image(pixels: Tensor, adapter: Adapter) -> bytes:
    """Return the file of an image (1 or 3, height, width) of uint8."""
    from PIL import Image

    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    factor = -(-adapter.min_size // min(pixels.shape[1:]))
    if factor > 1:
        array = array.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    out = io.BytesIO()
    image = Image.fromarray(array.contiguous().numpy())
    if adapter.image == "jpeg":
        image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    else:
        image.save(out, "PNG")
    return out.getvalue()


def check_images(adapter: Adapter, shape: tuple[int, ...]) -> None:
    """Raise InputError unless inputs of this shape can be sent in the adapter's form."""
    if adapter.send != "json" and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise InputError(
            f"expected inputs of shape (1 or 3, height, width) to send as images, got {shape}",
            "send",
        )
    if adapter.layout == "channels_last" and len(shape) < 2:
        raise InputError(f"expected inputs with channels, got inputs of shape {shape}", "layout")
