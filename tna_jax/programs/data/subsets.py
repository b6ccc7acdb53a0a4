"""Data sets made of others: some classes of one (`cifar10:0-4`), several as one (`cifar10:0-4+cifar100_test`)."""

import dataclasses
import functools

import numpy as np

from tna_jax.programs.data.source import DataError, Dataset, Split

JOIN, CHOOSE = "+", ":"


def select_classes(dataset: Dataset, classes: str) -> Dataset:
    """Returns the examples of some classes, which are numbered anew in the order of `classes`.

    Args:
      dataset: the set.
      classes: numbers, ranges and class names separated by commas: `0-4`, `cat,dog`, `0,2,5-9`.

    Raises:
      DataError: an unknown or repeated class, or a split that is left without examples.
    """
    chosen = [number for word in classes.split(",") for number in _numbers(word.strip(), dataset)]
    repeated = sorted({number for number in chosen if chosen.count(number) > 1})
    if repeated:
        raise DataError(
            f"{dataset.name}{CHOOSE}{classes}: named more than once: classes {', '.join(map(str, repeated))}"
        )
    numbers = np.full(dataset.num_classes, -1, np.int32)
    numbers[chosen] = np.arange(len(chosen), dtype=np.int32)

    def part(split: Split) -> Split:
        rows = np.flatnonzero(numbers[split.labels] >= 0)
        if not len(rows):
            raise DataError(f"{dataset.name}{CHOOSE}{classes}: a split has no example of these classes")
        return Split(split.images[rows], numbers[split.labels[rows]])

    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}{CHOOSE}{classes}",
        train=part(dataset.train),
        test=part(dataset.test),
        num_classes=len(chosen),
        class_names=tuple(dataset.class_names[number] for number in chosen),
    )


def _numbers(word: str, dataset: Dataset) -> list[int]:
    if word in dataset.class_names:
        return [dataset.class_names.index(word)]
    first, dash, last = word.partition("-")
    ends = (first, last) if dash else (word, word)
    if all(end.isascii() and end.isdigit() for end in ends):
        low, high = map(int, ends)
        if low <= high < dataset.num_classes:
            return list(range(low, high + 1))
    names = ", ".join(dataset.class_names[:12]) + (", ..." if dataset.num_classes > 12 else "")
    raise DataError(
        f"{dataset.name} has no classes {word!r}: name numbers 0 to {dataset.num_classes - 1} or names ({names})"
    )


def join(parts: list[Dataset]) -> Dataset:
    """Joins the examples of the sets, one after another; the classes of each are numbered on from those before.

    Raises:
      DataError: images of another size or scale than the first set's.
    """
    return functools.reduce(_both, parts)


def _both(a: Dataset, b: Dataset) -> Dataset:
    if (a.image_shape, a.max_value, a.mean, a.std) != (b.image_shape, b.max_value, b.mean, b.std):
        raise DataError(
            f"{a.name} and {b.name} cannot be joined: images of {a.image_shape} and {b.image_shape}, or scaled otherwise"
        )

    def part(x: Split, y: Split) -> Split:
        return Split(np.concatenate([x.images, y.images]), np.concatenate([x.labels, y.labels + a.num_classes]))

    return dataclasses.replace(
        a,
        name=f"{a.name}{JOIN}{b.name}",
        train=part(a.train, b.train),
        test=part(a.test, b.test),
        num_classes=a.num_classes + b.num_classes,
        class_names=(*a.class_names, *b.class_names),
    )
