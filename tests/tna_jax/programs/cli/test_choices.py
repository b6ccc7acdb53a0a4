"""The names that options take are those of the library's registries."""

import dataclasses
import inspect
from typing import get_args, get_type_hints

import optax
import pytest

from tna_jax import augment, averaging, corruptions, federated, models, objectives, placement
from tna_jax.federated import federation, partition, schedules
from tna_jax.federated.servers import SERVERS
from tna_jax.masks import DRAWS
from tna_jax.models import layers
from tna_jax.programs import data
from tna_jax.programs.cli import choices
from tna_jax.programs.cli.arguments import options
from tna_jax.programs.cli.catalog import PROGRAMS, options_of
from tna_jax.programs.cli.options import ModelOptions
from tna_jax.programs.data import subsets, text
from tna_jax.programs.soup.options import SEVERITY

IMAGE_MODELS = [name for name in models.MODELS if not name.startswith(choices.TEXT_MODELS)]


@pytest.mark.parametrize(
    ("stated", "registry"),
    [
        (choices.Placement, get_args(placement.Placement)),
        (choices.Augmentation, get_args(augment.Augmentation)),
        (choices.Ties, get_args(averaging.Ties)),
        (choices.MaskKind, DRAWS),
        (choices.Corruption, corruptions.KINDS),
        (choices.Norm, layers.NORMS),
        (choices.Convolution, layers.CONVS),
        (choices.TextTask, text.names()),
        (choices.ImageModel, IMAGE_MODELS),
        (choices.Objective, objectives.BY_NAME),
        (choices.Algorithm, federated.ALGORITHMS),
        (choices.ServerName, SERVERS),
        (choices.MaskSchedule, get_args(schedules.ScheduleKind)),
        (choices.Partition, (*get_args(partition.PartitionKind), "natural")),
        (choices.NormStatistics, get_args(federation.NormPolicy)),
    ],
)
def test_choices_are_those_of_the_registry(stated, registry):
    assert get_args(stated) == tuple(registry)


def test_data_sets_and_how_they_are_joined():
    assert data.names() == choices.DATASETS
    assert (subsets.JOIN, subsets.CHOOSE, data.TFDS) == ("+", ":", "tfds:")
    assert [severity for severity in range(-1, 9) if SEVERITY.holds(severity)] == [
        *range(1, corruptions.SEVERITIES + 1)
    ]


def test_servers_are_rules_and_optimizers():
    assert get_args(choices.Server) == (*get_args(choices.ServerName), *choices.OPTIMIZERS)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_the_options_of_a_network_are_those_it_has(name):
    fields = [field.name for field in dataclasses.fields(ModelOptions) if field.name != "model"]
    assert choices.model_options(name) == tuple(f for f in fields if f in models.MODELS[name].options)


@pytest.mark.parametrize("name", get_args(choices.Objective))
def test_the_options_of_an_objective_are_those_it_has(name):
    make, stated = objectives.BY_NAME[name], choices.OBJECTIVE_OPTIONS.get(name, {})
    hints = get_type_hints(inspect.unwrap(make))
    assert list(stated) == list(inspect.signature(make).parameters)
    assert all(kind in (hints[option], get_args(hints[option])) for option, kind in stated.items())


@pytest.mark.parametrize("name", choices.OPTIMIZERS)
def test_optimizers_are_those_of_optax(name):
    has = "momentum" in inspect.signature(getattr(optax, name)).parameters
    assert has == (name in choices.WITH_MOMENTUM)


@pytest.mark.parametrize("name", PROGRAMS)
def test_defaults_are_among_the_choices(name):
    for option in options(options_of(name)):
        if option.choices and option.default is not None and not option.metavar:
            values = option.default if option.many else (option.default,)
            assert set(values) <= set(option.choices), option.flag
