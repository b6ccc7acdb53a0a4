"""All data-free merging methods by name. Needs NumPy only."""

from tna_jax.merging import (
    average,
    breadcrumbs,
    dare,
    della,
    iso_c,
    karcher,
    model_stock,
    sce,
    slerp,
    task_arithmetic,
    ties,
    wudi,
)
from tna_jax.merging.method import Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        average.METHOD, slerp.METHOD, karcher.METHOD, model_stock.METHOD, task_arithmetic.METHOD, ties.METHOD, dare.LINEAR, dare.TIES, della.METHOD,
        della.LINEAR, breadcrumbs.METHOD, sce.METHOD, iso_c.METHOD, wudi.METHOD,
    )
}  # fmt: skip
