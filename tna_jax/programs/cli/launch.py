"""How every program starts and ends: options, its run, one line for what is the user's to mend, exit codes."""

import errno
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from tna_jax import backend
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.progress import Interrupted
from tna_jax.programs.system import distributed

Options = TypeVar("Options")

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says of a disk that is full, or a folder that must not be written."""


def of_file(error: OSError) -> str:
    """What the system says of a file, in a line."""
    file = error.filename2 or error.filename or "a file"
    return f"{'cannot write ' if error.errno in FULL_OR_CLOSED else ''}{file}: {error.strerror}"


def launch(name: str, cls: type[Options], run: Callable[[Options], Any], arguments: list[str], description: str) -> int:
    """Runs the program `tna NAME`; returns its exit code: 0, 2 for a wrong option or input, 130 if interrupted.

    Of several processes, those that are left when one is gone say so and leave with exit code 1.

    Args:
      name: of the program.
      cls: its options.
      run: the program itself.
      arguments: the command line after the name.
      description: its docstring, the first line of which stands above the help.
    """
    try:
        run(parsing.parse(cls, arguments, name, description.splitlines()[0]))
    except UsageError as error:
        return distributed.print_user_error(f"tna {name}: {error}")
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED and error.filename is None:
            raise
        return distributed.print_user_error(f"tna {name}: {of_file(error)}")
    except Interrupted:
        return 130
    except Exception as error:
        if backend.exhausted(error) and jax.process_count() == 1:
            return distributed.print_user_error(
                f"tna {name}: out of memory on {jax.devices()[0].device_kind}; let fewer models share the device at once: "
                "--memory-limit GB (the others follow in waves, to the same numbers), --placement map, or a smaller --batch-size; "
                "what was saved before is intact"
            )
        if distributed.is_peer_lost(error):
            distributed.abort(f"tna {name}: another process of this job is gone; all checkpoints are intact; start all again "
                        "with tna resume RUN and their --coordinator, --num-processes, --process-id (or --distributed)")  # fmt: skip
        raise
    except KeyboardInterrupt:
        distributed.print_user_error(f"tna {name}: stopped at once; what was saved before is intact")
        return 130
    return 0
