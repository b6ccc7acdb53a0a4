"""Any image classification set prepared by TensorFlow Datasets, read without TensorFlow (array_record files)."""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.data import tfds_folder
from tna_jax.programs.data.source import DataError, Dataset, Split, Unusable, checked_split, make

BLOCK = 1024
INSTALL = "pip install 'tna-jax[tfds]'"


def read(text: str, root: Path, *, name: str | None = None) -> Dataset | None:
    """Reads the set `NAME[/CONFIG][:VERSION]` prepared below `root`; called `name`, or `tfds:...` by default.

    The test split is the one called test, or validation where there is none. TensorFlow Datasets stores examples in
    a hashed order, not that of the original files: images, labels and splits agree with a copy read
    from those files, row numbers and the examples of `Dataset.subset` do not.

    Returns:
      The data set, images (N, H, W, C) uint8, C = 1 or 3, in stored order; None if it is not prepared there.

    Raises:
      Unusable: an optional package is missing, or it is stored in a form that needs TensorFlow.
      DataError: not a set of images of one size with one label each, or damaged.
    """
    folder = tfds_folder.find(tfds_folder.parse(text), root)
    if folder is None:
        return None
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        image_key, label_key = _keys(builder, folder)
        label = builder.info.features[label_key]
        splits = [_read_split(builder, part, image_key, label_key, folder) for part in _parts(builder, folder)]
    except DataError:
        raise
    except ImportError as error:
        raise Unusable(
            f"{folder} needs TensorFlow Datasets and array_record to be read ({error}): {INSTALL}"
        ) from error
    except (OSError, ValueError, KeyError, IndexError, TypeError, AssertionError, RuntimeError) as error:
        fault = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: cannot be read, damaged or incomplete ({fault})") from error
    return make(name or f"tfds:{text}", splits[0], splits[1], label.names)


def _keys(builder: Any, folder: Path) -> tuple[str, str]:
    """Returns the names of the image and the label among the features."""
    import tensorflow_datasets as tfds

    features, keys = dict(builder.info.features.items()), builder.info.supervised_keys
    if not (isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys)):
        keys = ("image", "label")
    faults = []
    image, label = (features.get(key) for key in keys)
    kinds = (tfds.features.Image, tfds.features.Tensor)  # their `dtype` imports TensorFlow, `np_dtype` does not
    if not isinstance(image, kinds) or image.np_dtype != np.uint8 or len(image.shape) != 3:
        faults.append(f"{keys[0]!r} is {image}, expected uint8 images (height, width, channels)")
    elif image.shape[-1] not in (1, 3):
        faults.append(f"{keys[0]!r} has {image.shape[-1]} channels, expected 1 or 3")
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        faults.append(f"{keys[1]!r} is {label}, expected a ClassLabel")
    if faults:
        raise DataError(f"{folder}: not an image classification set: {'; '.join(faults)}")
    return keys[0], keys[1]


def _parts(builder: Any, folder: Path) -> tuple[str, str]:
    """Returns the names of the train and the test split."""
    names = list(builder.info.splits)
    test = next((part for part in ("test", "validation") if part in names), None)
    if "train" not in names or test is None:
        raise DataError(f"{folder}: has the splits {', '.join(names)}, expected train and test (or validation)")
    return "train", test


def _read_split(builder: Any, part: str, image_key: str, label_key: str, folder: Path) -> Split:
    source = builder.as_data_source(split=part)
    info = builder.info.features
    labels = np.zeros(len(source), np.int64)
    images = None
    for start in range(0, len(source), BLOCK):
        rows = range(start, min(start + BLOCK, len(source)))
        block = source.__getitems__(list(rows))
        if images is None:
            images = np.empty((len(source), *block[0][image_key].shape), np.uint8)
        shapes = {tuple(example[image_key].shape) for example in block} | {images.shape[1:]}
        if len(shapes) > 1:
            sizes = " and ".join(map(str, sorted(shapes)[:2]))
            raise DataError(f"{folder}: {part} images differ in size ({sizes}), images of one size are needed")
        images[rows.start : rows.stop] = [example[image_key] for example in block]
        labels[rows.start : rows.stop] = [example[label_key] for example in block]
    if images is None:
        raise DataError(f"{folder}: the {part} split is empty")
    return checked_split(images, labels, info[label_key].num_classes, source=f"{folder}: {part}")
