"""What a figure shows: its axes' labels, and the numbers that are drawn."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure


def numbers(axis) -> Iterator[np.ndarray]:
    """The numbers drawn on an axis: of lines, points and areas, bars, pictures."""
    for line in axis.lines:
        yield np.asarray(line.get_ydata(), float)
    for collection in axis.collections:
        yield np.asarray(collection.get_offsets(), float)
        for path in collection.get_paths():
            yield path.vertices
    for patch in axis.patches:
        yield np.asarray(patch.get_extents().bounds)
    for image in axis.images:
        yield np.asarray(image.get_array(), float)


def assert_shows_data(figure: Figure) -> None:
    """Some axis is there; each shows finite numbers and says what they are."""
    axes = [axis for axis in figure.axes if axis.get_visible() and axis.axison]
    assert axes, "no axes"
    for axis in axes:
        drawn = np.concatenate([np.ravel(values) for values in numbers(axis)] or [np.zeros(0)])
        assert np.isfinite(drawn).sum() > 1, f"nothing drawn on {axis}"
    said = [
        axis.get_xlabel() or axis.get_ylabel() or axis.get_title() for axis in axes
    ]  # of a grid, the outer ones speak for all
    assert any(said) or figure.get_supxlabel(), "nothing says what is drawn"
