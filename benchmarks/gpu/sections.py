"""The five sections of the benchmark."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks.gpu.bench import EPOCHS, GOALS, MNIST, PRECISIONS, Bench, Program
from benchmarks.gpu.programs import (
    FLOPS,
    MULTIPLY_ADDS,
    forget,
    images_of,
    network_of,
    stacked,
    training_makers,
    way_makers,
)
from tna_jax import connectivity


def training_case(bench: Bench, name: str, precision: str, members: int) -> dict[str, Any]:
    what = f"{name}, {members} models, {precision}"
    if bench.spent:
        return {"not_started": "the budget is spent"}
    results = bench.compare(what, training_makers(bench, name, precision, members), FLOPS[name], precision)
    goal = f" (goal: {GOALS['resnet20_times_one']} times one)" if (name, members) == ("resnet20", 32) else ""
    bench.show(what + goal, results)
    forget()
    return results


def mlp(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 1."""
    for members, precision in itertools.product(bench.sizes.mlp, bench.precisions):
        results = cases[f"mlp/{members}/{precision}"] = training_case(bench, "mlp", precision, members)
        if members == max(bench.sizes.mlp) and precision in bench.rates:
            images = members * MNIST * EPOCHS
            limit = images * FLOPS["mlp"] / bench.rates[precision]
            for placement in ("vmap", "map"):
                if "model_images_per_second" in results.get(placement, {}):
                    took = images / results[placement]["model_images_per_second"]
                    found = {"seconds": took, "limit_seconds": limit, "times_limit": took / limit}
                    results[placement]["ten_epochs_of_mnist"] = found
                    bench.console.print(
                        f"{EPOCHS} MNIST epochs of {members} models, {precision}, {placement}: {took:.1f} s projected, "
                        f"{took / limit:.2f} times the limit of {limit:.1f} s (goal: {GOALS['ten_epochs_times_limit']})"
                    )
        bench.write()


def convolutions(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 2."""
    sizes = bench.sizes
    for members, name, precision in itertools.product(sizes.convolutions, sizes.networks, bench.precisions):
        cases[f"{name}/{members}/{precision}"] = training_case(bench, name, precision, members)
        bench.write()


def ways(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 3: of the MLP and the first network with convolutions, the most models of each."""
    sizes = bench.sizes
    chosen = [("mlp", sizes.mlp), *((name, sizes.convolutions) for name in sizes.networks[:1])]
    for precision, (name, numbers) in itertools.product(bench.precisions, chosen):
        if not numbers:
            continue
        members = max(numbers)
        what = f"{name}, {members} models, {precision}: batches and iterations"
        results = bench.compare(what, way_makers(bench, name, precision, members), FLOPS[name], precision)
        cases[f"{name}/{members}/{precision}"] = results
        bench.show(what, results)
        forget()
        bench.write()


def path(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 4. `map_whole` takes all images as one batch, the others 1,000 at a time."""
    sizes = bench.sizes
    ends = next(m for m in itertools.count(2) if m * (m - 1) // 2 >= sizes.pairs)
    pairs, alphas = connectivity.pairs(ends)[: sizes.pairs], connectivity.grid(sizes.points)
    for precision in bench.precisions:

        def make(placement, batch, precision=precision):
            def made(facts):
                net, one = network_of("mlp", precision)
                members = stacked(one, ends)
                data = {"test": tuple(jnp.asarray(part) for part in images_of("mlp", sizes.test))}

                def run():  # its result is NumPy: it is done
                    with jax.default_matmul_precision(PRECISIONS[precision]):
                        connectivity.evaluate_paths(
                            net, members, pairs, alphas, data, batch_size=batch, placement=placement
                        )

                return Program(run, len(pairs) * len(alphas) * sizes.test)

            return made

        makers = {"vmap": make("vmap", 1000), "map": make("map", 1000), "map_whole": make("map", sizes.test)}
        what = f"path of {len(pairs)} pairs x {len(alphas)} points, {precision}"
        results = cases[f"path/{precision}"] = bench.compare(what, makers, 2 * MULTIPLY_ADDS, precision)
        bench.show(f"{what} (goal: {GOALS['path_share_of_limit']:.0%} of the limit)", results)
        forget()
        bench.write()


def instruction_counts(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 5: of the first network and the most models."""
    members, name = max(bench.sizes.convolutions, default=0), next(iter(bench.sizes.networks), "")
    for precision in bench.precisions if members and name else ():
        key = f"{name}/{members}/{precision}"
        known = bench.found.get("convolutions", {}).get(key)
        if known is None:
            makers = training_makers(bench, name, precision, members)
            wanted = {placement: makers[placement] for placement in ("vmap_native", "vmap_slices")}
            known = bench.compare(key, wanted, FLOPS[name], precision)
            bench.show(f"{key}, vmap", known)
            forget()
        both = {placement: known.get(placement, {}) for placement in ("vmap_native", "vmap_slices")}
        order = sorted(
            both, key=lambda placement: -both[placement].get("model_images_per_second", 0)
        )  # one that failed has lost
        ranked = dict(zip(("winner", "loser"), order, strict=True))
        cases[key] = {role: {"alternative": placement, **both[placement]} for role, placement in ranked.items()}
        table = Table(title=f"{members} {name} by vmap, {precision}: instructions", title_justify="left")
        table.add_column("instruction")
        for role, placement in ranked.items():
            table.add_column(f"{role}: {placement}", justify="right")
        counts = [both[placement].get("instructions", {}) for placement in order]
        for kind in sorted(set().union(*counts)):
            table.add_row(kind, *(str(count.get(kind, 0)) for count in counts))
        bench.console.print(table)
        bench.write()
