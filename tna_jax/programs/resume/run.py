"""`tna resume RUN`: goes on with an interrupted run where it stopped, to the same result."""

from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.launch import of_file
from tna_jax.programs.cli.main import main as tna
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training.setup import OF_ONE_START, PASSING_OPTIONS

PROGRAMS = ("lmc", "train", "pretrain", "soup", "cold", "federate")
HELP = f"""usage: tna resume RUN [OPTIONS]

{__doc__.splitlines()[0]}

RUN is a run folder of {" or ".join(f"tna {name}" for name in PROGRAMS)}; its config.json says what was asked for.
OPTIONS are options of that program that do not shape the result, where they shall differ from before: --cpu-devices,
--data-dir, --memory-limit, --checkpoint-minutes, --checkpoint-every, --checkpoints-kept, --log, and on several machines
--distributed, or --coordinator, --num-processes and --process-id."""


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0 if arguments else 2
    try:
        words = command(arguments[0], arguments[1:])
    except UsageError as error:
        return distributed.print_user_error(f"tna resume: {error}")
    except OSError as error:
        return distributed.print_user_error(f"tna resume: {of_file(error)}")
    return tna(words)


def command(name: str, more: list[str]) -> list[str]:
    """The words after `tna` that go on with the run folder `name`.

    Args:
      name: the run folder.
      more: options that replace those the run was started with.

    Raises:
      UsageError: it is no run folder, or its config.json does not say how it was started.
    """
    folder = Run.open(name)
    config = folder.read(CONFIG)
    program, before = config.get("program"), config.get("started_with", {})
    if not isinstance(program, str):
        raise UsageError(f"{folder.folder / CONFIG} does not name the program: use its own --resume")
    if program == "import":
        raise UsageError(
            f"{folder.folder} holds imported models, which do not train: tna fuse {folder.word} averages them"
        )
    if program not in PROGRAMS:
        raise unknown(f"program in {folder.folder / CONFIG}", program, PROGRAMS)
    known = set(PASSING_OPTIONS) - set(OF_ONE_START)
    if not isinstance(before, dict) or not set(before) <= known:
        raise UsageError(f"{folder.folder / CONFIG}: started_with must hold options among {', '.join(sorted(known))}")
    return [
        program,
        "--config",
        str(folder.folder / CONFIG),
        *parsing.to_words(before),
        "--out",
        name,
        "--resume",
        *more,
    ]
