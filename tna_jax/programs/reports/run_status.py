"""How far a run is, and what came out of it, in words."""

from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.io.restore import listed
from tna_jax.programs.cli.parsing import ABOUT
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.divergence import DIVERGED, is_finite
from tna_jax.programs.reports.statistics import mean_std
from tna_jax.programs.runs.folder import CONFIG, PLAN, Run
from tna_jax.programs.runs.lock import held

RESULTS = {"lmc": "lmc.json", "train": "train.json", "import": PLAN, "pretrain": "pretrain.json", "soup": "soup.json",
           "cold": "cold.json", "federate": "federate.json"}  # fmt: skip
"""The file that says that a run of a program is finished."""

INITS = {"same": "same initialization", "different": "different initializations"}


def describe(folder: Path) -> dict[str, Any]:
    """A run in words: program, state, configuration, headline; what cannot be read is said in its state."""
    opened = Run(folder)
    row: dict[str, Any] = {"folder": folder, "program": "?", "config": {}, "state": "", "result": ""}
    try:
        config = opened.read(CONFIG)
        row["program"] = str(config.get("program", "lmc" if opened.has("lmc.json") else "train"))
        row["config"] = {name: value for name, value in config.items() if name not in ABOUT}
        done = RESULTS.get(row["program"], "")
        if held(folder):
            row["state"] = f"running, {progress(opened, config)}"
        elif done and opened.has(done):
            row["state"] = "finished"
            row["result"] = headline(opened.read(done))
        else:
            row["state"] = f"interrupted, {progress(opened, config)}"
    except UsageError as error:
        row["state"] = f"unreadable: {error}"
    return row


def progress(run: Run, config: dict[str, Any]) -> str:
    """How far the newest checkpoint is: `epoch 3 of 20`."""
    federated = config.get("program") == "federate"
    epochs = config.get("rounds" if federated else "epochs")
    if not run.has(PLAN) or type(epochs) is not int:
        return "nothing saved yet"
    models, wave = run.plan()
    if federated:
        done = (listed(run.checkpoints) or [0])[0]
        return (
            f"round {done} of {epochs * len(models)} in {plural(len(models), 'run')}" if done else "nothing saved yet"
        )
    waves = -(-len(models) // wave)
    steps = listed(run.checkpoints)
    if not steps:
        return "nothing saved yet"
    return f"epoch {steps[0]} of {epochs * waves}{f' in {waves} waves' if waves > 1 else ''}"


def headline(result: dict[str, Any]) -> str:
    """The numbers that matter most, means over the test set: barriers by ratio, accuracy by mask schedule, or the models' accuracy."""
    try:
        if isinstance(result.get("headline"), str):
            return str(result["headline"])
        first = measures.of_result(result)[0]
        if "rows" in result:
            rows = [row for row in result["rows"] if row["split"] == "test" and row["method"] == "tna"]
            return f"{first.label_of(' barrier')} {_barriers(rows, f'{first.name}_barrier')}"
        if "runs" in result:
            scores: dict[str, list[dict[str, Any]]] = {}
            for run in result["runs"]:
                scores.setdefault(run["anchors"], []).append({"score": run["score"], "loss": run["loss"][-1]})
            means = {kind: [row["score"] for row in rows if is_finite(row)] for kind, rows in scores.items()}
            return f"{first.name} " + ", ".join(
                f"{f'{mean_std(values).mean:.4f}' if values else DIVERGED} {kind}" for kind, values in means.items()
            )
        if "models" in result and "at_once" not in result:
            key = f"test_{first.name}"
            finite = [model for model in result["models"] if is_finite(model, "test_loss")]
            values = [model[key] for model in finite if model[key] is not None]
            return (
                f"test {first.label} {mean_std(values).mean:.4f} of {plural(len(values), 'model')}"
                if values
                else "all models diverged"
            )
        return f"{len(result['models'])} imported"
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"its results are not as this version writes them ({type(error).__name__}: {error})"
        ) from error


def _barriers(rows: list[dict[str, Any]], column: str) -> str:
    """Mean barriers by mask ratio, of each kind of initialization by itself: they are different questions."""
    parts = []
    for init in dict.fromkeys(row["init"] for row in rows):
        means: dict[float, str] = {}
        for ratio in sorted({row["ratio"] for row in rows}):
            chosen = [row for row in rows if (row["init"], row["ratio"]) == (init, ratio)]
            finite = [row[column] for row in chosen if row[column] is not None and None not in row.get("loss_path", ())]
            means |= {ratio: f"{mean_std(finite).mean:.4f}" if finite else DIVERGED} if chosen else {}
        listed = ", ".join(f"{mean} at ratio {ratio:g}" for ratio, mean in means.items())
        parts += [f"{INITS.get(init, init)}: {listed}"] if listed else []
    return "; ".join(parts)
