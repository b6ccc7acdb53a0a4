"""The options of `tna cold`."""

import dataclasses
import os
from typing import Annotated, ClassVar, get_args

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import checkpoint_names
from tna_jax.programs.cli.arguments import Hidden, Known, Section
from tna_jax.programs.cli.checkpoint_names import CHECKPOINT
from tna_jax.programs.cli.choices import TextTask
from tna_jax.programs.cli.dataset_names import absolute, own_tasks, text_problem
from tna_jax.programs.cli.finetuning_options import FreezeOptions, TuningOptions
from tna_jax.programs.cli.ranges import COUNT, NOT_NEGATIVE, POSITIVE, RATIOS, Rule

SCORES = Section("scores")
TASKS = Rule(text_problem)


@dataclasses.dataclass(frozen=True)
class ColdOptions(TuningOptions, FreezeOptions):
    """Run ColD Fusion: text tasks fine-tune one encoder each for itself, their bodies are averaged, again and again."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "checkpoint", "tasks", "unseen", "data_dir", "ratios", "freeze", "seeds", "iterations", "examples", "epochs", "learning_rate",
        "out", "memory_limit",
    )  # fmt: skip

    checkpoint: Annotated[str | None, CHECKPOINT] = None
    """Hugging Face folder of the encoder, with its tokenizer: of tna pretrain --model bert, or a downloaded BERT or RoBERTa;
    or one that tna fetch has a name for (tna fetch --list), hf:OWNER/REPOSITORY too."""
    tasks: Annotated[tuple[str, ...], TASKS, Known(get_args(TextTask))] = (
        "sst2",
        "mr",
        "subj",
        "trec",
        "cr",
        "mpqa",
        "cola",
    )
    """Contributors: each of these tasks fine-tunes the body in every iteration. Texts of your own: FILE.tsv or FILE.csv with the
    columns text (text2) and label, a folder of them, hf:NAME."""
    unseen: Annotated[tuple[str, ...], TASKS, Known(get_args(TextTask))] = ("ag_news", "rte")
    """Tasks that do not contribute and are only scored."""
    task_fingerprints: Annotated[tuple[str, ...] | None, Hidden()] = None
    """The hashes of the contents of the user's own texts, as a run records them: of --tasks, then of --unseen."""
    ratios: Annotated[tuple[float, ...], RATIOS] = (0.0, 0.4)
    """Mask ratios of the body: shares of ANCHORED weights, drawn anew in each iteration; 0 is plain ColD Fusion."""
    seeds: Annotated[int, COUNT] = 1
    """Repetitions, each with its own heads, anchors, examples and data orders."""
    iterations: Annotated[int, COUNT] = 3
    """How often bodies are sent out and averaged."""
    epochs: Annotated[int, COUNT] = 1
    """Passes of a contributor over its examples in an iteration."""
    examples: Annotated[int, COUNT] = 1000
    """Training examples of a contributor in an iteration, drawn anew each time; smaller tasks repeat theirs."""
    learning_rate: Annotated[float, POSITIVE] = 5e-4
    """Peak learning rate of AdamW; a contributor's optimizer starts afresh in each iteration."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.01
    """Weight decay, decoupled, of matrices."""
    average_diverged: bool = False
    """Average the bodies of contributors that diverged too; default: a body that is not finite is left out of the average, and named."""
    length: Annotated[int, COUNT] = 32
    """Tokens of a text or pair; longer ones are cut."""
    score_examples: Annotated[int, COUNT, SCORES] = 500
    """Training examples by which a body is fine-tuned for its score."""
    score_epochs: Annotated[int, COUNT, SCORES] = 3
    """Passes over them."""
    tune_every: Annotated[int, COUNT, SCORES] = 1
    """Score by fine-tuning after every so many iterations, and before the first and after the last; the probe scores all."""
    probe_examples: Annotated[int, COUNT, SCORES] = 1000
    """Training examples of the linear probe."""
    test_examples: Annotated[int | None, COUNT, SCORES] = 1000
    """Test examples of each task; all where there are fewer."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(super().check, self.check_source, self.check_tasks)

    def check_source(self) -> None:
        """Raises UsageError without a checkpoint, or for several processes."""
        if self.checkpoint is None:
            raise UsageError(
                "give --checkpoint FOLDER, a BERT or RoBERTa with its tokenizer: tna pretrain --model bert makes one"
            )
        checkpoint_names.require_outside(self, (self.checkpoint,))
        if self.distributed or self.coordinator is not None:
            raise UsageError(
                "tna cold runs in one process, on all its devices: leave out --distributed and --coordinator"
            )

    def check_tasks(self) -> None:
        """Raises UsageError for tasks that are named twice, or too few."""
        named: dict[str, list[str]] = {}
        for name in (*self.tasks, *self.unseen):
            named.setdefault(os.path.realpath(absolute(name)) if name in own_tasks((name,)) else name, []).append(name)
        twice = sorted(" = ".join(dict.fromkeys(names)) for names in named.values() if len(names) > 1)
        if twice or len(self.tasks) < 2:
            raise UsageError(
                f"--tasks and --unseen: named twice: {', '.join(twice)}" if twice else "--tasks: name two or more"
            )
