"""All data-free merging methods by name. Needs NumPy only."""

from tna_jax.merging import average, slerp, task_arithmetic
from tna_jax.merging.method import Method

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (average, task_arithmetic, slerp)
}  # fmt: skip
