"""Theorem III.4's set-up (arXiv 2402.01342) by Monte Carlo against our bound and our exact second moment (`docs/theorem.md`).

Shows: two-layer networks with independent entries where the mask is True and equal ones where it is False. How large the gap
between the model on the path and the linear path is, over `h`, `d`, both ratios and three laws of the entries; how often it
exceeds the bound; whether it scales as derived.
Hardware: CPU, two cores. Minutes: about 2 (`--full`: 16 times the draws and h to 1024, estimated 30).
Command: python -m train theorem
Expected, mean ± standard deviation over 5 seeds of 1024 pairs each: no draw above the bound for delta = 0.05, which at ratios 0.4 is
2.71 ± 0.12 times the 0.95 quantile; slope of log RMS in log h 0.498 ± 0.006, in log (1 - rho_U) 0.470 ± 0.012 where v is free and
0.721 ± 0.037 where all of it is anchored; measured over exact RMS 0.997 ± 0.022 (settings and seeds).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from tna_jax.programs.cli.progress import console
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, format_mean_std, mean_std, mean_std_columns
from tna_jax.programs.reports.terminal import show_table
from tna_jax.theory import two_layer

SEEDS = (0, 1, 2, 3, 4)
DELTA = 0.05
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
MIDDLE = ALPHAS.index(0.5)
SHRINK = tuple(np.round(np.arange(0.1, 1.01, 0.1), 1).tolist())
BASE: dict[str, Any] = {"entries": "gaussian", "h": 64, "d": 64, "rho_v": 0.4, "rho_u": 0.4}
RATIOS_U = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
RATIOS_V = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SLOPE_U = (0.6, 0.8, 0.9)  # rows still have d (1 - rho_U) = 6 free entries or more: see docs/theorem.md


def settings(full: bool) -> list[dict[str, Any]]:
    """Every setting once: `BASE` with one or two of its values changed."""
    changes: list[dict[str, Any]] = [{"rho_v": v, "rho_u": u} for v in (0.0, 0.4, 1.0) for u in RATIOS_U]
    changes += [{"rho_v": v} for v in RATIOS_V]
    changes += [{"h": h} for h in (4, 16, 64, 256, *((1024,) if full else ()))]
    changes += [{"d": d} for d in (8, 64, 256)]
    changes += [{"entries": name} for name in two_layer.ENTRIES]
    return [dict(items) for items in dict.fromkeys(tuple((BASE | change).items()) for change in changes)]


def run(full: bool = False) -> dict[str, Any]:
    """Rows of every setting and seed, and the fitted slopes; all gaps in units of `sigma_v sigma_u |x|`."""
    draws = 16384 if full else 1024
    todo = track(settings(full), "settings", console=console)
    rows = [cell(setting, seed, draws) for setting in todo for seed in SEEDS]
    result = {"delta": DELTA, "alphas": ALPHAS, "shrink": SHRINK, "draws": draws, "seeds": SEEDS, "base": BASE}
    result |= {"rows": rows}
    return result | {"summary": summary(result)}


def cell(setting: dict[str, Any], seed: int, draws: int) -> dict[str, Any]:
    """One setting, one seed: its own input `x` of norm 1, masks, anchors and networks."""
    h, rho_v, rho_u = setting["h"], setting["rho_v"], setting["rho_u"]
    generator = np.random.default_rng(seed)
    x = generator.normal(size=setting["d"])
    x = (x / np.linalg.norm(x)).astype(np.float32)
    ratios = {"rho_v": jnp.float32(rho_v), "rho_u": jnp.float32(rho_u)}
    alphas = jnp.array(ALPHAS, jnp.float32)
    found = two_layer.gaps(jax.random.key(seed), jnp.asarray(x), alphas, draws, h, entries=setting["entries"], **ratios)
    sizes = np.abs(np.asarray(found, np.float64))  # (draws, A)
    limits = {"norm": 1.0, "h": h, "rho_v": rho_v, "rho_u": rho_u, "alpha": np.array(ALPHAS)}
    bound, everywhere = (two_layer.bound(**limits, delta=delta) for delta in (DELTA, DELTA / len(ALPHAS)))
    mask = {"U": generator.random((256, h, x.size)) >= rho_u, "v": generator.random((256, h)) >= rho_v}
    exact = np.sqrt(two_layer.second_moment(x, mask, alpha=0.5).mean()) if setting["entries"] == "gaussian" else None
    return setting | {
        "seed": seed,
        "rms": np.sqrt(np.mean(sizes**2, axis=0)),
        "exact_rms_middle": exact,
        "quantile": np.quantile(sizes, 1 - DELTA, axis=0),
        "bound": bound,
        "share_above": np.mean(sizes > bound, axis=0),
        "share_above_at_any_alpha": np.mean((sizes > everywhere).any(axis=1)),
        "share_above_shrunk": [np.mean(sizes[:, MIDDLE] > c * bound[MIDDLE]) for c in SHRINK],
    }


def select(result: dict[str, Any], **change: Any) -> list[dict[str, Any]]:
    """The rows of one setting, one for each seed."""
    setting = result["base"] | change
    return [row for row in result["rows"] if all(row[key] == value for key, value in setting.items())]


def middle(result: dict[str, Any], column: str, **change: Any) -> np.ndarray:
    """(seeds,) a column at alpha = 1/2."""
    return np.array([np.ravel(row[column])[MIDDLE if np.ndim(row[column]) else 0] for row in select(result, **change)])


def spread(values: Any) -> dict[str, Any]:
    """Mean, sample standard deviation and number of seeds."""
    return {**mean_std(values)._asdict(), "n": len(values)}


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Slopes of log RMS at alpha = 1/2 fitted for each seed, what `v`'s anchors do, and how far the bound is from the gap."""

    def slope(x: np.ndarray, changes: list[dict[str, Any]]) -> dict[str, Any]:
        sizes = np.log([middle(result, "rms", **change) for change in changes])  # (settings, seeds)
        return spread(np.polyfit(np.log(x), sizes, 1)[0])

    widths = sorted({row["h"] for row in result["rows"]})
    depths = sorted({row["d"] for row in result["rows"]})
    free = 1 - np.array(SLOPE_U)
    gaussian = [row for row in result["rows"] if row["exact_rms_middle"]]
    return {
        "slope_h": slope(np.array(widths), [{"h": h} for h in widths]),
        "slope_d": slope(np.array(depths), [{"d": d} for d in depths]),
        "slope_free_u_v_free": slope(free, [{"rho_v": 0.0, "rho_u": u} for u in SLOPE_U]),
        "slope_free_u_v_anchored": slope(free, [{"rho_v": 1.0, "rho_u": u} for u in SLOPE_U]),
        "rms_v_anchored_over_free": spread(middle(result, "rms", rho_v=1.0) / middle(result, "rms", rho_v=0.0)),
        "bound_over_quantile": spread(middle(result, "bound") / middle(result, "quantile")),
        "measured_over_exact": spread([row["rms"][MIDDLE] / row["exact_rms_middle"] for row in gaussian]),
        "largest_share_above": max(float(np.max(row["share_above"])) for row in result["rows"]),
        "largest_share_above_at_any_alpha": max(float(row["share_above_at_any_alpha"]) for row in result["rows"]),
    }


def table(result: dict[str, Any]) -> None:
    """Prints a row for each setting: mean ± standard deviation over seeds, at alpha = 1/2."""
    title = (
        f"gap to the linear path at alpha 1/2 in units of sigma_v sigma_u |x|, mean ± std over {len(result['seeds'])} "
        f"seeds of {result['draws']} pairs, delta {result['delta']}"
    )
    heads = ["entries", "h", "d", "ρ_v", "ρ_U", "RMS", "exact RMS", "quantile 1-δ", "bound", "share above"]
    rows = []
    keys = tuple(result["base"])
    for values in dict.fromkeys(tuple(row[key] for key in keys) for row in result["rows"]):
        change = dict(zip(keys, values, strict=True))
        cells = [format_mean_std(mean_std(middle(result, name, **change)), 3) for name in ("rms", "quantile")]
        exact = [row["exact_rms_middle"] for row in select(result, **change)]
        bound, above = middle(result, "bound", **change).mean(), middle(result, "share_above", **change).mean()
        exactly = f"{np.mean(exact):.3f}" if None not in exact else "-"
        rows.append([*map(str, values), cells[0], exactly, cells[1], f"{bound:.2f}", f"{above:.4f}"])
    show_table(Table(title, heads, rows, keys=5))
    fits = [[name.replace("_", " "),
             format_mean_std([value["mean"], value["std"]], 3) if isinstance(value, dict) else f"{value:.4f}"]
            for name, value in result["summary"].items()]  # fmt: skip
    show_table(Table("fits, mean ± std over seeds", ["what", "value"], fits))


def figure(result: dict[str, Any], file: Path) -> None:
    """Four panels: the gap against both ratios and the width, and how often it exceeds a bound that is shrunk."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8}):
        grid, axes = plt.subplots(2, 2, figsize=(7.2, 6.2), layout="constrained")
        ratios = [u for u in RATIOS_U if u < 1]
        _against(axes[0, 0], result, 1 - np.array(ratios), [{"rho_u": u, "rho_v": 0.0} for u in ratios], "v free", 0)
        _against(
            axes[0, 0], result, 1 - np.array(ratios), [{"rho_u": u, "rho_v": 1.0} for u in ratios], "v anchored", 1
        )
        axes[0, 0].set(xscale="log", yscale="log", xlabel="1 − ρ$_U$, trainable share of U", title="a. anchors of U")
        axes[0, 0].set_xticks([0.05, 0.1, 0.2, 0.5, 1], ["0.05", "0.1", "0.2", "0.5", "1"])
        axes[0, 0].minorticks_off()
        _against(axes[0, 1], result, np.array(RATIOS_V), [{"rho_v": v} for v in RATIOS_V], "other ratios 0.4", 2)
        axes[0, 1].set(xlabel="ρ$_v$, anchored share of v", title="b. anchors of v", ylim=(0, None))
        widths = sorted({row["h"] for row in result["rows"]})
        _against(axes[1, 0], result, np.array(widths), [{"h": h} for h in widths], "other ratios 0.4", 2)
        axes[1, 0].set(xscale="log", yscale="log", xlabel="hidden units h", title="c. width")
        axes[1, 0].set_xticks(widths, [str(h) for h in widths])
        axes[1, 0].minorticks_off()
        _shrunk(axes[1, 1], result)
        for axis in (axes[0, 0], axes[0, 1], axes[1, 0]):
            axis.set_ylabel("gap at α = ½ / (σ$_v$ σ$_U$ ‖x‖)")
        for axis in axes.ravel():
            axis.grid(alpha=0.3, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        axes[1, 1].legend(frameon=False)
        handles, labels = (
            a + b for a, b in zip(*(axes[i].get_legend_handles_labels() for i in ((0, 0), (1, 0))), strict=True)
        )
        grid.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
        grid.savefig(file, dpi=160)
        plt.close(grid)


def _against(
    axis: Any, result: dict[str, Any], x: np.ndarray, changes: list[dict[str, Any]], name: str, style: int
) -> None:
    """Bound, quantile and RMS: lines for formulas, points with bars (one standard deviation) for what was drawn."""
    color, marker, line = (("#1b6ca8", "o", "-"), ("#c7522a", "s", "--"), ("black", "D", "-."))[style]
    values = {c: np.array([middle(result, c, **change) for change in changes]) for c in ("bound", "quantile", "rms")}
    exact = [np.mean([row["exact_rms_middle"] for row in select(result, **change)]) for change in changes]
    label = f"bound, {name}"
    axis.plot(x, values["bound"].mean(1), color=color, linestyle=line, linewidth=2.2, label=label)
    axis.plot(x, exact, color=color, linestyle=line, linewidth=1, label=f"exact RMS, {name}")
    for column, filled, text in (("quantile", "white", f"quantile {1 - result['delta']:g}"), ("rms", color, "RMS")):
        mean, std = error_bars(mean_std_columns(values[column].T))
        points = {"marker": marker, "markersize": 4.5, "markerfacecolor": filled, "linestyle": "none", "capsize": 2}
        axis.errorbar(x, mean, std, color=color, label=f"{text}, {name}", **points)


def _shrunk(axis: Any, result: dict[str, Any]) -> None:
    for entries, line, marker in zip(two_layer.ENTRIES, ("-", "--", ":"), "os^", strict=True):
        shares = np.array([row["share_above_shrunk"] for row in select(result, entries=entries)])
        points = {"linestyle": line, "marker": marker, "markersize": 4.5, "capsize": 2}
        axis.errorbar(result["shrink"], *error_bars(mean_std_columns(shares)), label=entries, **points)
    axis.axhline(result["delta"], color="black", linewidth=1, linestyle="-.", label=f"δ = {result['delta']}")
    axis.set(xlabel="factor on the bound (1: the theorem)", ylabel="share of pairs above", title="d. how loose it is")
