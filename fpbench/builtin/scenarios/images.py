"""The scenario `images`: classes of a user's own images, in folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fpbench import Classification, FieldError, InputError, Pool, Positive

from .memory import require_memory
from .own_data import OwnData, check_normalisation, index_classes, normalised

if TYPE_CHECKING:
    from PIL import Image

Listing = dict[str, dict[str, list[Path]]]
"""Images by part and class; the part "" is a folder without parts."""


@dataclass(frozen=True)
class Images(OwnData, Classification):
    """Classes of your own images, in the folders of TorchVision's ImageFolder.

    The images of a class are in FOLDER/CLASS/, or, where the folder has parts, in
    FOLDER/PART/CLASS/, such as train/cat/1.png. Inputs are in [0, 1]. The networks are small ones
    for the size (cnn, resnet, vgg, mlp), TorchVision's, and those of your own Python file.

    folder:   the folder, relative to the current one.
    size:     width and height; images of another size are scaled. By default the images' own size,
              which all of them must have.
    channels: 1 for grey or 3 for colour; by default what the first image is.
    classes:  the names of the classes in the order of the network's outputs; by default by
              alphabet, as ImageFolder has them.
    mean, std: a number per channel, or one for all. Every network subtracts the mean from its
              inputs and divides by std, so that queries stay images in [0, 1].
    train, public, test, irrelevant, seed: the parts or shares of the data that are pools; if unset,
             what the folders are called (docs/data.md).
    sha256:  the digest of the data; other data are then refused.
    """

    name = "images"
    input_range = (0.0, 1.0)

    folder: str = field(kw_only=True)
    size: Positive | None = None
    channels: Literal[1, 3] | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        listing = list_images(self.path)
        files = [file for classes in listing.values() for each in classes.values() for file in each]
        try:
            first = _open(files[0])
        except InputError as error:
            raise FieldError("folder", str(error)) from None
        channels = self.channels or (1 if first.mode in ("1", "L", "I;16", "I", "F") else 3)
        width, height = (self.size, self.size) if self.size else first.size
        check_normalisation(channels, self.mean, self.std)
        labels = [name for classes in listing.values() for name in classes]
        _, names = index_classes("classes", np.array(labels), self.classes, self.folder)
        self.identify()
        object.__setattr__(self, "class_names", tuple(names))
        dealt = self.deal(self._truth(listing))
        sizes = {pool: len(index) for pool, (_, index) in dealt.items()}
        self.describe_data((channels, height, width), sizes)

    def data_files(self) -> Iterator[tuple[str, Path]]:
        for classes in list_images(self.path).values():
            for files in classes.values():
                yield from ((str(file.relative_to(self.path)), file) for file in files)

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.class_names),)

    @property
    def summary(self) -> str:
        total, (_, height, width) = sum(self.pool_sizes.values()), self.input_shape
        return (
            f"{Path(self.folder).name}: {total:,} images of {height} x {width}, "
            f"{len(self.class_names)} classes, sha256 {self.sha256[:16]}"
        )

    def architecture(self, name: str) -> Callable[[], nn.Module]:
        return normalised(super().architecture(name), self.mean, self.std)

    def load(self) -> Mapping[str, Pool]:
        require_memory(self, "take a smaller `size:`")
        self.require_unchanged()
        listing = list_images(self.path)
        truth = self._truth(listing)
        files = {
            part: [file for each in classes.values() for file in each]
            for part, classes in listing.items()
        }
        return self.with_other_domain(
            {
                pool: Pool(
                    torch.stack([self._read(files[part][i]) for i in index.tolist()]),
                    truth[part][index],
                )
                for pool, (part, index) in self.deal(truth).items()
            }
        )

    def _truth(self, listing: Listing) -> dict[str, Tensor]:
        """Return the class index of each image, by part."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return {
            part: torch.tensor([index[name] for name, each in classes.items() for _ in each])
            for part, classes in listing.items()
        }

    def _read(self, file: Path) -> Tensor:
        """Return an image as (channels, height, width) in [0, 1]."""
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        channels, height, width = self.input_shape
        image = _open(file)
        if image.size != (width, height):
            if self.size is None:
                raise InputError(
                    f"expected an image of {width} x {height}, as the first one, got "
                    f"{image.size[0]} x {image.size[1]}; `size:` scales all images to one size",
                    str(file),
                )
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels: Tensor = pil_to_tensor(image.convert("L" if channels == 1 else "RGB"))
        return pixels.float() / 255


def list_images(root: Path) -> Listing:
    """Return the images of a folder by part and class. Raises FieldError for another layout."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    if not root.is_dir():
        raise FieldError("folder", f"expected a folder at {root}, found none")

    def classes_in(part: Path) -> dict[str, list[Path]]:
        found = {each.name: _images_in(each, IMG_EXTENSIONS) for each in _folders(part)}
        return {name: files for name, files in found.items() if files}

    parts = {"": classes_in(root)}
    if not parts[""]:
        parts = {part.name: found for part in _folders(root) if (found := classes_in(part))}
    if not parts:
        raise FieldError(
            "folder",
            f"expected images in {root}/CLASS/ or {root}/PART/CLASS/, such as "
            f"{root}/train/cat/1.png, found none; images end in {', '.join(IMG_EXTENSIONS)}",
        )
    for part, classes in parts.items():
        empty = [each.name for each in _folders(root / part) if each.name not in classes]
        if empty:
            raise FieldError(
                "folder",
                f"expected images in each folder of {root / part}, found none in {empty[0]!r}",
            )
    return parts


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")


def _images_in(folder: Path, extensions: Sequence[str]) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in extensions and file.is_file()
    )


def _open(file: Path) -> Image.Image:
    """Decode an image. Raises InputError for a file that holds none."""
    from PIL import Image

    try:
        image = Image.open(file)
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"expected an image, could not read it: {error}", str(file)) from None
    return image
