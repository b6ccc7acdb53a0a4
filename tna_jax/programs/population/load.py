"""Opens finished runs for the programs that fuse: data, network, and all models of one or more runs as one population."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.masks import Params
from tna_jax.networks import Network, State, linen
from tna_jax.objectives import Objective
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.options import ModelOptions
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.data import Dataset, Split
from tna_jax.programs.population import checkpoint_status, compatibility
from tna_jax.programs.population.description import RunDescription, description, load, load_data
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.training.builders import build_model
from tna_jax.programs.training.ensembles import finished
from tna_jax.programs.training.initial_models import Init
from tna_jax.programs.training.objective_fit import check_fit, objective_arguments, objective_of
from tna_jax.programs.training.setup import build_network


class Population(NamedTuple):
    """M trained models of the same network on the same data."""

    folder: Run
    """The first run."""
    config: dict[str, Any]
    """Its options."""
    what: str
    """The network in a few words."""
    data: Dataset
    network: Network
    exact: Network
    """The same in float32, for matching: in bfloat16 a permuted network is the same function only roughly."""
    module: nn.Module | None
    """None for a network of the user's own."""
    objective: Objective
    """What the models were trained for."""
    params: Params
    """(M, ...) on the host."""
    state: State
    """(M, ...) on the host."""
    models: list[dict[str, Any]]
    """What plan.json says of each, its run, and its number there."""
    warnings: list[str]
    """What speaks against averaging them."""
    checkpoints: list[dict[str, Any]]
    """Of each run, see `tna_jax.programs.population.checkpoint_status`."""
    init: Init
    """A key to the initial (params, state) of a model."""
    configs: list[dict[str, Any]]
    """The options of each model's run."""


def open_runs(
    names: tuple[str, ...], data_dir: str | None, chosen: tuple[int, ...] = (), trust_code: bool = False
) -> Population:
    """Loads all models of the runs, or the chosen ones, but those that diverged, which are named on the screen.

    Args:
      names: folders.
      data_dir: where the data sets are, if not where $TNA_DATA_DIR says.
      trust_code: see `description`.
      chosen: numbers of models, counted from 0 through all runs in order; none: all.

    Raises:
      UsageError: a run that cannot be read; runs of other networks or data than the first's; numbers that no model has or
        that are there twice; fewer than two models left.
    """
    folders = _open_folders(names)
    configs = [folder.read(CONFIG) for folder in folders]
    described = [description(config, name, data_dir, trust_code) for name, config in zip(names, configs, strict=True)]
    _require_alike(names, described)
    data, network, init = load(described[0])
    check_fit(described[0], data, network, init)
    module, exact = None, network
    if described[0].own_model and described[0].precision == "bf16":
        exact = build_network(dataclasses.replace(described[0], precision="float32"), data)[0]
    if not described[0].own_model:
        module = build_model(described[0], data.num_classes, described[0].precision)
        exact = linen(build_model(described[0], data.num_classes), data.image_shape, data.preprocess)[0]
    parts = [finished(folder, init) for folder in folders]
    checkpoints = [
        checkpoint_status.reached(folder, config, part[3])
        for folder, config, part in zip(folders, configs, parts, strict=True)
    ]
    params, state = (
        jax.tree.map(lambda *x: np.concatenate(x), *trees) for trees in zip(*(part[:2] for part in parts), strict=True)
    )
    models = [
        {**model, "run": Path(name).name, "number": i}
        for name, part in zip(names, parts, strict=True)
        for i, model in enumerate(part[2])
    ]
    owners = [config for config, part in zip(configs, parts, strict=True) for _ in part[2]]
    if chosen:
        _require_numbers(chosen, len(models))
        params, state = jax.tree.map(lambda leaf: leaf[np.array(chosen)], (params, state))
        models, owners = ([values[i] for i in chosen] for values in (models, owners))
    finite = np.array([
        all(np.isfinite(leaf[i]).all() for leaf in jax.tree.leaves((params, state))) for i in range(len(models))
    ])  # fmt: skip
    for i in np.flatnonzero(~finite):
        print_warning(f"left out: model {models[i]['number']} of {models[i]['run']}, which diverged")
    if finite.sum() < 2:
        raise UsageError(
            f"{' '.join(names)}: {plural(int(finite.sum()), 'model')} that did not diverge; two or more are needed"
        )
    params, state = jax.tree.map(lambda leaf: leaf[finite], (params, state))
    models, owners = (
        [value for value, kept in zip(values, finite, strict=True) if kept] for values in (models, owners)
    )
    return Population(
        folders[0],
        configs[0],
        described[0].describe(),
        data,
        network,
        exact,
        module,
        objective_of(described[0]),
        params,
        state,
        models,
        checkpoint_status.warn(checkpoints) + compatibility.warn(models, owners),
        checkpoints,
        init,
        owners,
    )


def _open_folders(names: tuple[str, ...]) -> list[Run]:
    """Opens the runs, the first of which gets the results; raises UsageError that names all that cannot be opened."""
    folders: list[Run] = []
    collect_errors(*(lambda name=name: folders.append(Run.open(name)) for name in dict.fromkeys(names)))
    seen: dict[Path, str] = {}
    twice = []
    for name in names:
        if (place := Path(name).resolve()) in seen:
            twice.append(name if name == seen[place] else f"{name} is {seen[place]}")
        seen.setdefault(place, name)
    if twice:
        raise UsageError(f"named more than once: {', '.join(dict.fromkeys(twice))}; its models would count twice")
    folders[0].writable()
    return folders


def _require_alike(names: tuple[str, ...], described: list[RunDescription]) -> None:
    """Raises UsageError that names every run of another network or other data than the first's."""
    wrong = []
    for name, other in zip(names[1:], described[1:], strict=True):
        ours, theirs = effective(described[0]), effective(other)
        differing = [f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if theirs[key] != ours[key]]
        wrong += [f"{name} does not go with {names[0]}: {', '.join(differing)}"] if differing else []
    if wrong:
        raise UsageError("; ".join(wrong))


def effective(described: RunDescription) -> dict[str, Any]:
    """Returns the options of a run's network and data; for those that were not set, what the network has by default."""
    options = dataclasses.asdict(described) | {"objective_options": objective_arguments(described)}
    if described.own_model:
        return options
    module = build_model(described, 2)
    for field in dataclasses.fields(ModelOptions):
        if options[field.name] is None:
            options[field.name] = getattr(module, field.name, None)
    return {key: "the default" if value is None else value for key, value in options.items()}


def _require_numbers(chosen: tuple[int, ...], count: int) -> None:
    """Raises UsageError that names every number of `chosen` that no model has, or that is there twice."""
    wrong = sorted({i for i in chosen if not 0 <= i < count})
    twice = sorted({i for i in chosen if chosen.count(i) > 1})
    problems = [f"no model {', '.join(map(str, wrong))}: the numbers go from 0 to {count - 1}"] if wrong else []
    problems += [f"{', '.join(map(str, twice))} named twice"] if twice else []
    if problems:
        raise UsageError(f"--models: {'; '.join(problems)}")


def held_out(population: Population, data_dir: str | None, examples: int) -> tuple[jax.Array, jax.Array, bool]:
    """Returns training examples to choose models by: (inputs, labels, whether the models were trained without them).

    Runs on a part of the training set (`--train-examples`) are scored on the rest of it. If there is none, on training
    examples that the models have seen, which favors models that have memorized them.
    """
    used = population.config.get("train_examples")
    split, unseen = population.data.train, False
    if used is not None:
        # the code it may name has been run already, to open the population
        described = description({**population.config, "train_examples": None}, "", data_dir, trust_code=True)
        data = load_data(described)
        if used < len(data.train.labels):
            ordered = data.subset(len(data.train.labels)).train
            part = slice(used, used + examples)
            split, unseen = Split(ordered.images[part], ordered.labels[part]), True
    return jnp.asarray(split.images[:examples]), jnp.asarray(split.labels[:examples]), unseen
