"""Runs a method on one hand-made tensor."""

import numpy as np

from tna_jax.merging import METHODS
from tna_jax.merging.tensors import merge_tensor


def merged(name, models, base=None, weights=None, tensor="layer/weight", **options):
    """The merged tensor, float32, of lists of numbers; `tensor` is its name."""
    arrays = [np.asarray(model, np.float32) for model in models]
    start = None if base is None else np.asarray(base, np.float32)
    method = METHODS[name]
    checked = method.check(len(arrays), start is not None, options)
    return merge_tensor(method, arrays, start, method.shares(weights, len(arrays)), checked, tensor)
