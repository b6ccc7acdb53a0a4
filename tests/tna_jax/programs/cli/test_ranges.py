"""Options out of their range, or none of their choices: all are named at once."""

import dataclasses
from typing import Annotated, Any

import pytest

from tna_jax import prng
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.choices import Corruption, Placement
from tna_jax.programs.cli.main import main
from tna_jax.programs.train.options import TrainOptions


def refused(call) -> str:
    with pytest.raises(UsageError) as error:
        call()
    return str(error.value)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Some options."""

    epochs: Annotated[int, ranges.COUNT] = 1
    learning_rate: Annotated[float, ranges.POSITIVE] = 0.1
    ratio: Annotated[float, ranges.SHARE] = 0.4
    drop: Annotated[float, ranges.PROBABILITY] = 0.0
    memory_limit: Annotated[float | None, ranges.BOUND] = None
    momentum: Annotated[float | None, ranges.SHARE] = None
    placement: Placement = "auto"
    levels: Annotated[tuple[int, ...], ranges.COUNT] = (1,)
    corruptions: tuple[Corruption, ...] = ()
    where: Annotated[str | None, ranges.PATTERN] = None


def test_every_wrong_option_is_named_with_its_range_or_choices():
    settings: Any = Settings(
        epochs=0, learning_rate=float("nan"), drop=1.5, momentum=1.0, levels=(1, 0, -1), where="(",
        placement="vmpa", corruptions=("noise", "blr"),
    )  # fmt: skip
    assert refused(lambda: ranges.check(settings)).split("; ") == [
        "--epochs must be at least 1, got 0",
        "--learning-rate must be above 0 and finite, got nan",
        "--drop must lie in [0, 1], got 1.5",
        "--momentum must lie in [0, 1), got 1.0",
        "unknown --placement 'vmpa': did you mean 'vmap'? known: auto, map, vmap, loop",
        "--levels must be at least 1, got 0, -1",
        "unknown --corruptions 'blr': did you mean 'blur'? known: noise, blur, contrast",
        "--where: where='(' is no regular expression: missing ), unterminated subpattern at position 0",
    ]
    ranges.check(Settings(memory_limit=float("inf"), corruptions=("noise",)))


SEEDED = {"train": "--seed", "fuse run": "--seed", "rebasin run": "--seed", "lmc": "--first-seed", "federate": "--first-seed",
          "soup --checkpoint x": "--seed", "cold --checkpoint x": "--seed", "pretrain": "--seed"}  # fmt: skip


@pytest.mark.parametrize("program", SEEDED)
@pytest.mark.parametrize("seed", [2**32, 10**20, -1])
def test_a_seed_that_would_draw_what_another_one_does_is_refused(capsys, program, seed):
    assert main([*program.split(), SEEDED[program], str(seed)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{SEEDED[program]} must lie in 0 to {prng.LAST_SEED}, got {seed}" in said


@pytest.mark.parametrize("program", ["lmc --first-seed", "federate --first-seed", "soup --checkpoint x --seed"])
def test_so_is_the_last_of_several(capsys, program):
    assert main([*program.split(), str(prng.LAST_SEED), "--seeds", "2"]) == 2
    assert f"the last of --seeds 2 must lie in 0 to {prng.LAST_SEED}, got {2**32}" in capsys.readouterr().err


def test_names_that_must_differ():
    assert ranges.DIFFERENT.problem("--methods", ("tna", "prune")) == ""
    assert "each once; got tna more than once" in ranges.DIFFERENT.problem("--methods", ("tna", "tna"))
    assert "each once; got none" in ranges.DIFFERENT.problem("--methods", ())


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((), "one or more different numbers, got none"),
        ((0.2, 0.2), "one or more different numbers, got 0.2, 0.2"),
        ((0.2, 0.2000001), "one or more different numbers, got 0.2, 0.2000001; of no more than six digits"),
        ((0.2, -0.1, 1.0), "must lie in [0, 1), got -0.1, 1.0"),
        ((0.0, 40.0), "got 40.0; did you mean 0.4?"),
        ((float("nan"),), "got nan"),
    ],
)
def test_ratios_are_different_shares(ratios, words):
    assert words in ranges.RATIOS.problem("--ratios", ratios)
    assert ranges.RATIOS.problem("--ratios", (0.0, 0.4)) == ""


def test_everything_that_is_wrong_is_told_at_once(capsys):
    for words, parts in (
        ("train --members 0 --epochs -1", ("--epochs must be at least 1", "--members must be at least 1")),
        ("soup --checkpoint x --recipes 0 --ratios 1.0 --corruptions nois --severities 7",
         ("--recipes must be at least 2", "--ratios (shares", "did you mean 'noise'", "1 to 5, got 7")),
        ("cold --checkpoint x --tasks tre crr --unseen foo", ("'tre' (did you mean 'trec'", "'crr' (did you mean", "'foo'")),
        ("soup --checkpoint x --models y z", ("--checkpoint and --models exclude each other",)),
        ("train --soft 1.5", ("--soft must lie in [0, 1), got 1.5",)),
        ("train --where (", ("where='(' is no regular expression",)),
        ("train --dataset digits --model resnet20 --depth 4", ("--model resnet20 has no --depth; its options: --norm,",)),
    ):  # fmt: skip
        assert main(words.split()) == 2
        told = capsys.readouterr().err
        assert all(part in told for part in parts), told
        assert not any(odd in told for odd in ("warmup", "0.015", "num_classes", "Traceback")), told
    assert main(["train", "--model", "mpl"]) == 2
    told = capsys.readouterr().err
    assert "did you mean 'mlp'" in told and "bert" not in told


def test_options_that_do_nothing_without_anchors_are_named():
    assert TrainOptions().idle() == ""
    assert TrainOptions(soft=0.5, where="Dense").idle().startswith("--where, --soft do nothing at mask ratio 0")
    assert TrainOptions(anchor_scale=2.0).idle().startswith("--anchor-scale does nothing")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --width x", "--width must be a whole number, got x"),
        ("train --members 1.5", "--members must be a whole number, got 1.5"),
        ("train --learning-rate x", "--learning-rate must be a number, got x"),
        ("fuse run --alphas x", "--alphas must be a number each, got x"),
        ("train --memory-limit 8GB", "--memory-limit must be a number, got 8GB"),
    ],
)
def test_a_value_of_another_type_is_told_without_the_parsers_own_words(capsys, words, said):
    assert main(words.split()) == 2
    assert capsys.readouterr().err.strip() == f"tna {words.split()[0]}: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"calibration_examples": true}', "calibration_examples must be a whole number, got true"),
        ('{"distributed": "false"}', 'distributed must be true or false, got "false"'),
        ('{"memory_limit": [1.0]}', "memory_limit must be one value, got [1.0]"),
        ('{"alphas": [[0, 1]]}', "alphas cannot be [[0, 1]]"),
        ('{"placement": {"a": 1}}', 'placement cannot be {"a": 1}'),
        ('{"run": "runs/a"}', "run is for the command line alone: write RUN there"),
        ('{"alphas": 5, "by": ["layer"], "alphas": 3}', "it names more than once: alphas"),
    ],
)
def test_what_cannot_stand_for_an_option_in_a_file_is_named(tmp_path, capsys, text, said):
    """Of the first the error was that RUN is missing; of a name that stands there twice the last value was taken."""
    (tmp_path / "mine.json").write_text(text)
    assert main(["barrier", "run", "--config", str(tmp_path / "mine.json")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
