"""CIFAR-10 and CIFAR-100 from files: image zips or the original binary version. The pickled version is refused."""

import dataclasses
from pathlib import Path

from tna_jax.programs.data import cifar_binary, cifar_zip
from tna_jax.programs.data.class_names import CIFAR10, CIFAR100
from tna_jax.programs.data.search_path import candidate_dirs
from tna_jax.programs.data.source import SUBSET_SEED, Dataset, Split, Unusable, make, permutation


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the parts of one of the two sets are."""

    folders: tuple[str, ...]
    """Names its own folder may have."""
    zip_labels: str
    """The array of labels in its image zips."""
    binary_folder: str
    binary_archive: str
    train_files: tuple[str, ...]
    """Binary files of the train split, in order."""
    test_file: str
    label_bytes: int
    """Labels at the beginning of a binary row; the last one counts."""
    pickled: tuple[str, str]
    """Folder and archive of the version for Python, which holds pickles."""
    class_names: tuple[str, ...]


LAYOUTS = {
    "cifar10": Layout(
        folders=("cifar10", "cifar-10", "CIFAR10"),
        zip_labels="labels.npy",
        binary_folder="cifar-10-batches-bin",
        binary_archive="cifar-10-binary.tar.gz",
        train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test_file="test_batch.bin",
        label_bytes=1,
        pickled=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
        class_names=CIFAR10,
    ),
    "cifar100": Layout(
        folders=("cifar100", "cifar-100", "CIFAR100"),
        zip_labels="fine_labels.npy",
        binary_folder="cifar-100-binary",
        binary_archive="cifar-100-binary.tar.gz",
        train_files=("train.bin",),
        test_file="test.bin",
        label_bytes=2,
        pickled=("cifar-100-python", "cifar-100-python.tar.gz"),
        class_names=CIFAR100,
    ),
}


def read(name: str, root: Path) -> Dataset | None:
    """Reads `cifar10` or `cifar100` (fine labels) from `root` or a folder of it that is named for the set.

    Returns:
      The data set, images (N, 32, 32, 3) uint8 in the order of the files; None if there is nothing of it.

    Raises:
      Unusable: a part is missing, or there is only the version that holds pickles.
      DataError: a file is damaged; names the file and the fault.
    """
    layout = LAYOUTS[name]
    folders = candidate_dirs(root, layout.folders)
    notes: list[str] = []
    for home in folders:
        if note := cifar_zip.lacks(home):
            notes.append(note)
        elif (home / "test.zip").is_file():
            return _from_zips(name, home)
    for home in dict.fromkeys([root, *folders]):
        for source in (
            home if home.name == layout.binary_folder else home / layout.binary_folder,
            home / layout.binary_archive,
        ):
            if dataset := _from_binary(name, source, notes):
                return dataset
    for home in dict.fromkeys([root, *folders]):
        notes += [
            f"{home / pickled} holds Python pickles, which can run any code and are not read: use {layout.binary_archive}"
            for pickled in layout.pickled
            if (home / pickled).exists()
        ]
    if notes:
        raise Unusable("; ".join(notes))
    return None


TEST_ONLY = "_test"
HELD_OUT = 0.1
"""Share of the examples of a test file that become the test split where it is all there is."""


def read_test(name: str, root: Path) -> Dataset | None:
    """Reads `cifar100_test`: the test file alone, of which a tenth, drawn by the seed of subsets, is the test split.

    Returns and raises as `read`; only image zips are read.
    """
    layout = LAYOUTS[name.removesuffix(TEST_ONLY)]
    for home in candidate_dirs(root, layout.folders):
        if (home / "test.zip").is_file():
            examples = cifar_zip.read_zips([home / "test.zip"], layout.zip_labels, len(layout.class_names))
            rows = permutation(len(examples.labels), SUBSET_SEED)
            held = max(1, round(HELD_OUT * len(rows)))
            test, train = (Split(examples.images[part], examples.labels[part]) for part in (rows[:held], rows[held:]))
            return make(name, train, test, layout.class_names)
    return None


def _from_zips(name: str, home: Path) -> Dataset:
    layout = LAYOUTS[name]
    train, test = (
        cifar_zip.read_zips(paths, layout.zip_labels, len(layout.class_names))
        for paths in (cifar_zip.train_paths(home), [home / "test.zip"])
    )
    return make(name, train, test, layout.class_names)


def _from_binary(name: str, source: Path, notes: list[str]) -> Dataset | None:
    layout = LAYOUTS[name]
    files = (*layout.train_files, layout.test_file)
    if source.is_dir():
        contents = cifar_binary.read_folder(source, files)
    elif source.is_file():
        contents = cifar_binary.read_tar(source, layout.binary_folder, files)
    else:
        return None
    lacking = [file for file in files if file not in contents]
    if lacking:
        notes.append(f"{source} lacks {', '.join(lacking)}")
        return None
    train, test = (
        cifar_binary.parse(contents, part, layout.label_bytes, len(layout.class_names), source=source)
        for part in (layout.train_files, (layout.test_file,))
    )
    return make(name, train, test, layout.class_names)
