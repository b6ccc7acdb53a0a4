"""What `tna pretrain` shows: a table, and loss and accuracy over the epochs."""

from pathlib import Path
from typing import Any

from rich.table import Table

from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.soup.report import memory_line


def table(result: dict[str, Any]) -> None:
    """Prints the first, the middle and the last epochs, and the test examples."""
    print(f"{result['what']}; {result['parameters']:,} parameters")
    lines = Table()
    for head in ("epoch", "loss", "accuracy"):
        lines.add_column(head, justify="right")
    epochs = result["epochs"]
    shown = sorted({round(i * (len(epochs) - 1) / 7) for i in range(8)})
    for i in shown:
        lines.add_row(str(epochs[i]["epoch"] + 1), f"{epochs[i]['loss']:.4f}", f"{epochs[i]['accuracy']:.4f}")
    lines.add_section()
    lines.add_row("test", f"{result['test']['loss']:.4f}", f"{result['test']['accuracy']:.4f}")
    wide_console().print(lines)
    memory_line(result["provenance"])


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws loss and accuracy of the training examples by epoch, that of the test examples as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = [line["epoch"] + 1 for line in result["epochs"]]
    grid, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(
            epochs,
            [line[name] for line in result["epochs"]],
            "o-",
            color="#1b6ca8",
            markersize=3.5,
            label="training, while it ran",
        )
        axis.axhline(result["test"][name], color="#c7522a", linestyle="--", label="test, at the end")
        axis.set(xlabel="epoch", ylabel=f"{name}{' (nats)' if name == 'loss' else ''}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8, frameon=False)
    grid.suptitle(
        f"{result['config']['model']} {result['config']['width']}x{result['config']['depth']}, {result['parameters']:,} parameters",
        fontsize=10,
    )
    grid.savefig(file, dpi=130)
    plt.close(grid)
