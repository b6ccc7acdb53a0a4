"""The greedy soup of `tna merge --evaluate`: candidates are written beside the output, one at a time, and scored by a command."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_json
from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import console
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.merge.score_command import NoScore, evaluate

if TYPE_CHECKING:
    from tna_jax.averaging import GreedySoup


def candidate_path(settings: MergeOptions) -> Path:
    """Returns where the candidates of a greedy soup are written."""
    out = Path(settings.out)
    return out.with_name(f".{out.stem}.candidate" + (".safetensors" if settings.single else ""))


def search(
    settings: MergeOptions, checkpoints: list[Checkpoint], write: Callable[[np.ndarray, Path], Any], scores_file: Path
) -> tuple["GreedySoup", list[str]]:
    """Searches the greedy soup of the models.

    Args:
      settings: with the command and its limit.
      checkpoints: the models; each is scored by itself first.
      write: writes the average of given weights (M,) to a path.
      scores_file: JSON that gets every score as it comes: a search that is stopped has not lost them.

    Returns:
      The soup, and why each candidate without a score was left out.

    Raises:
      UsageError: no model has a score.
    """
    from tna_jax.averaging import greedy_recipe  # JAX, which a plain merge does without

    assert settings.evaluate is not None
    candidate = candidate_path(settings)
    tried, scored, failed = 0, [], []

    def score(path: Path, what: str) -> float:
        try:
            value = evaluate(settings.evaluate or "", path, settings.evaluate_minutes)
        except NoScore as error:
            failed.append(f"{what} was left out: {error}")
            print_warning(failed[-1])
            value = math.nan
        scored.append({"candidate": what, "score": value})
        write_json(scores_file, {"evaluate": settings.evaluate, "scores": scored})
        if not math.isnan(value):
            console.print(f"score {value:.6g}: {what}", highlight=False)
        return value

    def soup(weights: np.ndarray) -> float:
        nonlocal tried
        tried += 1
        write(weights.astype(np.float64), candidate)
        used = " + ".join(checkpoints[i].path.name for i in np.flatnonzero(weights))
        return score(candidate, f"soup {tried} ({used})")

    try:
        recipe = greedy_recipe([score(c.path, str(c.path)) for c in checkpoints], soup, settings.ties)
    except ValueError as error:
        reason = f"; {failed[0]}" if failed else ""
        raise UsageError(f"--evaluate: {error}{reason}") from error
    finally:
        if candidate.is_dir():
            shutil.rmtree(candidate)
        candidate.unlink(missing_ok=True)
    return recipe, failed
