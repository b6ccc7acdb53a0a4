"""CIFAR from image zips: lossless WebP strips, 125 images of 32x32 below one another, and one array of labels."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tna_jax.programs.data.source import DataError, Split, checked_split

TRAIN_PARTS = tuple(f"train_{i}.zip" for i in range(1, 6))


def train_paths(folder: Path) -> list[Path]:
    """Returns the zips of the train split: `train.zip`, else all of `train_1.zip` to `train_5.zip`, else none."""
    if (folder / "train.zip").is_file():
        return [folder / "train.zip"]
    parts = [folder / part for part in TRAIN_PARTS]
    return parts if all(path.is_file() for path in parts) else []


def lacks(folder: Path) -> str | None:
    """Says what is missing in a folder that holds some of the zips; None if it holds all or none of them."""
    here = [name for name in ("train.zip", *TRAIN_PARTS, "test.zip") if (folder / name).is_file()]
    missing = [] if train_paths(folder) else ["its train part (train.zip, or train_1.zip to train_5.zip)"]
    missing += [] if "test.zip" in here else ["its test part (test.zip)"]
    return f"{folder} holds {', '.join(here)} but lacks {' and '.join(missing)}" if here and missing else None


def read_zips(paths: Sequence[Path], labels_name: str, num_classes: int) -> Split:
    """Reads the examples of several image zips one after another: images (N, 32, 32, 3) uint8, labels (N,) int32.

    Raises:
      DataError: Pillow is missing or cannot read WebP, or a zip is damaged or lacks a part; names the zip.
    """
    parts = [_read_zip(path, labels_name, num_classes) for path in paths]
    return Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def _read_zip(path: Path, labels_name: str, num_classes: int) -> Split:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            strips = sorted(name for name in names if name.endswith(".webp"))
            if not strips or labels_name not in names:
                raise DataError(f"{path}: holds {len(strips)} .webp strips, expected some and {labels_name}")
            labels = np.load(io.BytesIO(archive.read(labels_name)), allow_pickle=False)
            images = np.concatenate([_strip(archive.read(name), f"{path}: {name}") for name in strips])
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error})") from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: {labels_name} is not a list of whole numbers")
    return checked_split(images, labels, num_classes, source=path)


def _strip(content: bytes, source: str) -> np.ndarray:
    try:
        from PIL import Image, features
    except ImportError as error:
        raise DataError("CIFAR from image zips needs Pillow: pip install pillow") from error
    if not features.check("webp"):
        raise DataError("CIFAR from image zips needs a Pillow built with WebP: pip install --upgrade pillow")
    with Image.open(io.BytesIO(content)) as image:
        if image.width != 32 or image.height % 32:
            raise DataError(f"{source}: a strip of {image.width}x{image.height}, expected 32 wide, in steps of 32 high")
        return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)
