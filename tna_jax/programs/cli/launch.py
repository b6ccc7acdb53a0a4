"""How every program starts and ends: its options, checks, then its run, one line for what is the user's to mend, exit codes.

JAX is imported with the program's `run` module, once the options are right: help and refusals take no time.
"""

import errno
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli import help, interrupts, messages, parsing
from tna_jax.programs.cli.catalog import options_of, package_of
from tna_jax.programs.cli.progress import Interrupted, print_user_error

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says of a disk that is full, or a folder that must not be written."""
OF_THE_SYSTEM = (*FULL_OR_CLOSED, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOLCK)
"""What it says that is none of the program's doing, whether it names a file or not."""
IMPORTED_LATER = ("orbax", "matplotlib")
"""What a program imports only to save or draw, after it has trained: missed before."""


def of_file(error: OSError) -> str:
    """Returns what the system says of a file, in a line."""
    file = error.filename2 or error.filename or "a file"
    return f"{'cannot write ' if error.errno in FULL_OR_CLOSED else ''}{file}: {error.strerror}"


def launch(name: str, arguments: list[str]) -> int:
    """Runs the program `tna NAME`; returns its exit code: 0, 2 for a wrong option or input, 130 if interrupted.

    Args:
      name: of the program: its package holds the modules `options` and `run`.
      arguments: the command line after the name.
    """
    cls = options_of(name)
    if wanted := {"-h", "--help", "--help-all"} & set(arguments):
        print(help.text(name, cls, everything="--help-all" in wanted))
        return 0
    silent = bool(set(messages.QUIET) & set(arguments))
    arguments = [word for word in arguments if word not in messages.QUIET]
    try:
        settings: Any = parsing.parse(cls, arguments, name)
        if hasattr(settings, "check"):
            settings.check()
    except UsageError as error:
        return print_user_error(f"tna {name}: {error}")
    for package in IMPORTED_LATER:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"no module {package}", name=package)
    module = importlib.import_module(f"{package_of(name)}.run")
    run, exit_code = module.run, getattr(module, "exit_code", None)
    interrupts.hand_over()
    with messages.quiet(silent):
        return guarded(name, lambda: run(settings) if exit_code is None else exit_code(run(settings)))


def guarded(name: str, run: Callable[[], Any]) -> int:
    """Runs a program; returns its exit code, or 0 if it returns anything else.

    Of several processes, those that are left when one is gone say so and leave with exit code 1.
    """
    try:
        outcome = run()
    except UsageError as error:
        return print_user_error(f"tna {name}: {error}")
    except OSError as error:
        if error.errno not in OF_THE_SYSTEM and error.filename is None:
            raise
        return print_user_error(f"tna {name}: {of_file(error)}")
    except Interrupted:
        return interrupts.INTERRUPTED
    except Exception as error:
        if "jax" in sys.modules and (message := _of_the_machine(name, error)):
            return print_user_error(message)
        raise
    except KeyboardInterrupt:
        print_user_error(f"tna {name}: stopped at once; what was saved before is intact")
        return interrupts.INTERRUPTED
    return outcome if isinstance(outcome, int) else 0


def _of_the_machine(name: str, error: Exception) -> str:
    """Returns what to say of an error that is none of the program's: too little memory; ends a process that has lost the others."""
    import jax

    from tna_jax import backend
    from tna_jax.programs.system import distributed

    if backend.exhausted(error) and jax.process_count() == 1:
        return (
            f"tna {name}: out of memory on {jax.devices()[0].device_kind}; let fewer models share the device at once: "
            "--memory-limit GB (the others follow in waves, to the same numbers), --placement map, or a smaller --batch-size; "
            "what was saved before is intact"
        )
    if distributed.is_peer_lost(error):
        distributed.abort(f"tna {name}: another process of this job is gone; all checkpoints are intact; start all again "
                    "with tna resume RUN and their --coordinator, --num-processes, --process-id (or --distributed)")  # fmt: skip
    return ""
