"""Lets TensorFlow Datasets fetch and prepare a set: the only module for data that uses the network."""

import difflib
import importlib.util
from pathlib import Path

from tna_jax.programs.data import tfds_folder
from tna_jax.programs.data.source import DataError
from tna_jax.programs.data.tfds_source import INSTALL


def download(text: str, root: Path) -> None:
    """Fetches `NAME[/CONFIG][:VERSION]` and prepares it below `root` as array_record files.

    TensorFlow itself is needed here, once, by the builders that TensorFlow Datasets ships: they encode images with
    it. This is checked before anything is fetched. Reading what was prepared never needs it.

    Raises:
      DataError: a package is missing, the set is unknown, or it could not be fetched or prepared.
    """
    spec = tfds_folder.parse(text)
    try:
        import importlib_resources  # noqa: F401  (needed by download_and_prepare, which does not declare it)
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f"--download {text} needs TensorFlow Datasets: {INSTALL}") from error
    try:
        shipped = tfds.builder_cls(spec.name).__module__.startswith("tensorflow_datasets.")
    except ValueError as error:  # DatasetNotFoundError, whose message lists hundreds of names
        near = difflib.get_close_matches(spec.name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see tensorflow.org/datasets/catalog"
        raise DataError(f"TensorFlow Datasets knows no data set {spec.name!r}: {hint}") from error
    if shipped and importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"--download {text} needs TensorFlow to prepare the images, once (reading them does not): pip install tensorflow"
        )
    try:
        tfds.builder(text, data_dir=str(root), file_format="array_record").download_and_prepare()
    except Exception as error:  # whatever the network, the disk or the set's own builder may raise
        fault = " ".join(str(error).split())[:200]
        raise DataError(f"--download {text} into {root} failed: {type(error).__name__}: {fault}") from error
