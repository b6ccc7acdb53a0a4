"""The bar of `tna federate`: rounds, accuracy of the server's model, time left."""

from typing import Any

import numpy as np
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tna_jax.programs.cli.progress import console, room_for_bar


class Bar:
    """A bar over the rounds of all runs; use as a context manager."""

    def __init__(self, steps: int, done: int, measure: str = "accuracy"):
        self.measure = measure
        self.bar = Progress(
            TextColumn("{task.fields[line]}"), *room_for_bar(80), MofNCompleteColumn(),
            TextColumn(f"rounds  {measure} {{task.fields[accuracy]}}"), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=steps, completed=done, line="federating", accuracy="-")

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def round(self, line: dict[str, Any], number: int, rounds: int, accuracy: np.ndarray) -> None:
        """Round `number` of a run is done; `accuracy` (rounds,) up to it. The last of a run leaves a line on the screen."""
        name = f"{line['anchors']} seed {line['seed']}"
        self.bar.update(self.task, advance=1, line=name, accuracy=f"{accuracy[number]:.4f}")
        if number + 1 == rounds:
            last = accuracy[-5:]
            console.print(
                f"{name}: {self.measure} {np.mean(last):.4f}, mean of the last {len(last)} of {rounds} rounds"
            )
