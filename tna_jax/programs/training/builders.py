"""What the options stand for: the data set, the network, the optimizer; and the trainer of a transformer."""

import dataclasses
import functools
import inspect
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax

from tna_jax import finetuning, models
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs import data
from tna_jax.programs.cli.finetuning_options import TuningOptions
from tna_jax.programs.cli.options import DataOptions, ModelOptions, TrainingOptions
from tna_jax.programs.data import own


def load_data(options: DataOptions) -> data.Dataset:
    """Returns the data set; raises UsageError where it cannot be loaded."""
    try:
        request = data.Request(
            getattr(options, "objective", "classification"), options.target, options.image_size,
            options.dataset_sha256, options.trust_code, streams=True, client_column=getattr(options, "client_column", None),
        )  # fmt: skip
        dataset = data.load(options.dataset, data_dir=options.data_dir, download=options.download, request=request)
        if problem := own.changed(dataset, options.data_fingerprint):
            raise UsageError(f"--dataset: {problem}")
        return dataset.subset(options.train_examples, options.test_examples)
    except data.DataError as error:
        raise UsageError(f"--dataset: {error}") from error


def build_model(options: ModelOptions, num_classes: int, precision: str = "float32") -> nn.Module:
    """Returns the Linen module; raises UsageError for an unknown name, or options that it does not have."""
    if options.model not in models.MODELS:
        raise unknown("--model", options.model, models.MODELS)
    options.check_model()
    names = [field.name for field in dataclasses.fields(ModelOptions) if field.name != "model"]
    fields = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    dtype = jnp.bfloat16 if precision == "bf16" else None
    try:
        return models.create(options.model, num_classes=num_classes, dtype=dtype, **fields)
    except ValueError as error:
        raise UsageError(f"--model {options.model}: {error}") from error


def build_optimizer(options: TrainingOptions, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns the optax optimizer of the options (to be run under `tna_jax.anchored`); equal options have the same one."""
    warmup = round(options.warmup_epochs * steps_per_epoch)
    rest = max(options.epochs * steps_per_epoch - warmup, 1)
    constant = options.schedule == "constant" and not options.warmup_epochs
    schedule = None if constant else (options.schedule, warmup, rest)
    return _optimizer(options.optimizer, options.learning_rate, options.momentum, options.weight_decay, schedule)


@functools.lru_cache(maxsize=64)  # one object for equal options: the programs compiled for it are found again
def _optimizer(
    name: str, learning_rate: float, momentum: float | None, weight_decay: float, schedule: tuple[str, int, int] | None
) -> optax.GradientTransformation:
    """Returns an optimizer by its name in optax; the schedule is its name, steps of warmup, and steps after that."""
    make = getattr(optax, name)
    accepted = inspect.signature(make).parameters
    momentum = 0.9 if momentum is None and name == "sgd" else momentum
    fields: dict[str, Any] = {} if momentum is None else {"momentum": momentum}
    rate = learning_rate if schedule is None else _learning_rates(learning_rate, *schedule)
    if "weight_decay" in accepted:
        fields["weight_decay"] = weight_decay
    elif "weight_decay_rate" in accepted:
        fields["weight_decay_rate"] = weight_decay or None
    elif weight_decay:
        return optax.chain(optax.add_decayed_weights(weight_decay), make(rate, **fields))
    built: optax.GradientTransformation = make(rate, **fields)
    return built


def _learning_rates(peak: float, schedule: str, warmup: int, rest: int) -> optax.Schedule:
    """Returns the learning rate by step."""
    main = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
    }[schedule]()
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def transformer_fields(options: TuningOptions) -> dict[str, Any]:
    """Returns the fields of a transformer's module that the options set."""
    return {"dtype": jnp.bfloat16 if options.precision == "bf16" else None, "remat": options.remat}


def finetuning_trainer(
    options: TuningOptions, network: Any, examples: int, epochs: int | None = None, **fields: Any
) -> Trainer:
    """Returns the trainer of a transformer on `examples` examples; raises UsageError if they do not fill a batch."""
    if options.batch_size > examples:
        raise UsageError(f"--batch-size {options.batch_size} is larger than the {examples} training examples")
    steps = (options.epochs if epochs is None else epochs) * -(-examples // options.batch_size)
    warmup = min(round(options.warmup * steps), steps - 1)
    optimizer = finetuning.adamw(steps, warmup, options.clip)
    fields = {"accumulate": options.accumulate, "freeze": getattr(options, "freeze", None), **fields}
    return Trainer(network, optimizer, options.batch_size, options.placement, **fields)
