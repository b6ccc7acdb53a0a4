"""Pictures of the user's own as one array: gray or color, of one size or brought to one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.data.source import DataError

BY_CAMERA = ("JPEG", "MPO", "TIFF", "WEBP")
"""Formats whose pictures may be stored turned, with a word on how they were taken; PNG would be read as a whole to know."""
GRAY, COLOR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def stack(
    names: Sequence[str], opened: Callable[[int], Any], image_size: int | None, where: str, gray: bool | None = None
) -> np.ndarray:
    """Returns pictures as (N, H, W, 1) uint8 if all of them are gray, else (N, H, W, 3); transparency is dropped.

    With `image_size` they are turned as their camera says, cropped to a square at the center and scaled.

    Args:
      names: of the pictures, for errors.
      opened: from a number to the picture, as Pillow opens it.
      image_size: side in pixels; None: as they are.
      where: the data, for errors.
      gray: whether to make all of them gray; None: if they are.

    Raises:
      DataError: pictures that cannot be read or have more than 8 bits, or sizes that differ; names examples.
    """
    sizes, modes = zip(*_of_each(names, lambda i: _facts(names[i], opened, i)), strict=True)
    different: dict[tuple[int, int], str] = {}
    for size, name in zip(sizes, names, strict=True):
        different.setdefault(size, name)
    if image_size is None and len(different) > 1:
        examples = ", ".join(f"{name} is {size[0]}x{size[1]}" for size, name in list(different.items())[:3])
        raise DataError(
            f"{where}: images of {len(different)} sizes ({examples}); --image-size N brings them to N x N pixels"
        )
    strange = [f"{name} ({mode})" for mode, name in zip(modes, names, strict=True) if mode not in GRAY + COLOR]
    if strange:
        raise DataError(f"{where}: pixels of other forms than 8 bits a channel: {_some(strange)}")
    gray = all(mode in GRAY for mode in modes) if gray is None else gray
    width, height = (image_size, image_size) if image_size is not None else sizes[0]
    pixels = np.empty((len(names), height, width, 1 if gray else 3), np.uint8)

    def fill(i: int) -> None:
        pixels[i] = _pixels(names[i], opened(i), gray, image_size).reshape(height, width, -1)

    _of_each(names, fill)
    return pixels


SHOWN = 5
"""Pictures that an error names."""


def _some(words: Sequence[str], between: str = ", ") -> str:
    return between.join([*words[:SHOWN], *([f"and {len(words) - SHOWN} more"] if len(words) > SHOWN else [])])


def _of_each(names: Sequence[str], read: Callable[[int], Any]) -> list[Any]:
    """Returns what is read of each picture; raises one DataError that names those which cannot be read, and counts the rest."""
    found, wrong = [], []
    for i in range(len(names)):
        try:
            found.append(read(i))
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError(_some(wrong, "; "))
    return found


def is_gray(names: Sequence[str], opened: Callable[[int], Any]) -> bool:
    """Returns whether all pictures are gray. Arguments and errors as of `stack`."""
    return all(mode in GRAY for _, mode in _of_each(names, lambda i: _facts(names[i], opened, i)))


def from_file(path: Path) -> Any:
    """Opens a picture; its header alone is read."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images need Pillow: pip install pillow") from error
    with _reading(str(path)):
        return Image.open(path)


def _facts(name: str, opened: Callable[[int], Any], number: int) -> tuple[tuple[int, int], str]:
    """Size as it is seen and mode of a picture."""
    with _reading(name), opened(number) as picture:
        turned = picture.format in BY_CAMERA and picture.getexif().get(0x0112, 1) >= 5
        return (picture.size[::-1] if turned else picture.size), picture.mode


def _pixels(name: str, picture: Any, gray: bool, image_size: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    with _reading(name), picture:
        upright = (ImageOps.exif_transpose(picture) if picture.format in BY_CAMERA else picture).convert(
            "L" if gray else "RGB"
        )
        if image_size is not None:
            upright = ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BILINEAR)
        return np.asarray(upright)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns what Pillow says of a damaged picture into one line."""
    from PIL import Image

    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be read as an image ({' '.join(str(error).split())})") from error
