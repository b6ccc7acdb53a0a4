"""Winograd's convolutions F(2x2, 3x3) and F(4x4, 3x3) as batched matrix products; tried for CPUs, see `benchmarks.convolution_ways`.

A tile of m x m outputs needs (m + 2)^2 products for each pair of channels instead of 9 m^2: 2.25 times fewer for m = 2, 4 times for
m = 4 (Lavin and Gray, arXiv 1509.09308). The transformations are linear, so that JAX's derivatives are Winograd convolutions too.
"""

import jax
import jax.numpy as jnp
import numpy as np

INPUT = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
}  # fmt: skip
KERNEL = {
    2: [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
    4: [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
}  # fmt: skip
OUTPUT = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


def _combine(rows: list[list[jax.Array]], matrix: list[list[float]]) -> list[list[jax.Array]]:
    """`matrix @ rows @ matrix.T` of a square of arrays, zeros left out, so that the compiler sees sums of arrays."""

    def left(square: list[list[jax.Array]]) -> list[list[jax.Array]]:
        return [
            [
                sum(
                    (np.float32(c) * square[k][j] if c != 1 else square[k][j]) for k, c in enumerate(line) if c
                )
                for j in range(len(square[0]))
            ]
            for line in matrix
        ]  # fmt: skip

    half = left(rows)
    return [list(line) for line in zip(*left([list(line) for line in zip(*half, strict=True)]), strict=True)]


def convolve(inputs: jax.Array, kernel: jax.Array, tile: int) -> jax.Array:
    """(B, H, W, C) by (3, 3, C, O), stride 1, SAME, sides divisible by `tile` (2 or 4): (B, H, W, O)."""
    batch, height, width, channels = inputs.shape
    features, side, down, right = kernel.shape[-1], tile + 2, height // tile, width // tile
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = [
        [
            padded[:, i : i + (down - 1) * tile + 1 : tile, j : j + (right - 1) * tile + 1 : tile].reshape(-1, channels)
            for j in range(side)
        ]
        for i in range(side)
    ]
    tiles = jnp.stack([x for row in _combine(corners, INPUT[tile]) for x in row])
    matrix = jnp.asarray(np.asarray(KERNEL[tile], np.float32))
    kernels = jnp.einsum("ai,ijco,bj->abco", matrix, kernel, matrix).reshape(side * side, channels, features)
    products = jax.lax.dot_general(tiles, kernels, (((2,), (1,)), ((0,), (0,))))
    square = [[products[i * side + j] for j in range(side)] for i in range(side)]
    outputs = jnp.stack([jnp.stack(row) for row in _combine(square, OUTPUT[tile])])  # (tile, tile, N, O)
    placed = outputs.reshape(tile, tile, batch, down, right, features).transpose(2, 3, 0, 4, 1, 5)
    return placed.reshape(batch, height, width, features)
