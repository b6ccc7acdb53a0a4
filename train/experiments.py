"""Runs experiments by name and writes their results, a JSON and a PNG each, into the `results` folder of their room.

`python -m train` and `python -m fusion` list them. `all` stands for those that fit about an hour of two cores, `everything` for
every one of the room. `--full` takes the sizes meant for a GPU. What is finished is not computed again; `--draw` draws figures
and tables of the committed results and computes nothing.
"""

import argparse
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tna_jax import backend
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.programs.cli.progress import Interrupted, print_user_error, time_limit
from tna_jax.programs.data.source import DataError

OF_RECORD = ("case", "pairs", "placement")
"""Options of one experiment alone."""
ROOT = Path(__file__).resolve().parents[1]


def main(
    room: str, names: Sequence[str], groups: Mapping[str, Sequence[str]], arguments: Sequence[str] | None = None
) -> int:
    """Runs the experiments that the command line names; returns the exit code.

    Args:
      room: `train` or `fusion`: the package that holds the experiments, and the folder of their results.
      names: the experiments of the room.
      groups: names that stand for several of them.
      arguments: the words after `python -m ROOM`; default: those of this process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {room}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*names, *groups))}")
    parser.add_argument("--full", action="store_true", help="the size for a GPU")
    parser.add_argument("--draw", action="store_true", help="figures and tables of the committed results")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop, saved, after so many minutes")
    parser.add_argument("--case", help="record: one of its cases (default: those for a CPU)")
    parser.add_argument("--pairs", type=int, help="record: pairs of the rows that claims are about (default: 5)")
    parser.add_argument("--placement", help="record: how models share a device, as of `tna lmc` (default: auto)")
    options = parser.parse_args(arguments)
    extra = {name: value for name in OF_RECORD if (value := getattr(options, name)) is not None}
    if not options.names:
        for name in names:
            print(f"{name:12} {(_module(room, name).__doc__ or '').splitlines()[0]}")
        for name, members in groups.items():
            print(f"{name:12} {', '.join(members)}")
        return 0
    try:
        for name in options.names:
            if name not in (*names, *groups):
                raise unknown("experiment", name, [*names, *groups])
        chosen = dict.fromkeys(member for name in options.names for member in groups.get(name, (name,)))
        backend.configure(members=1_000_000)
        slices = chosen.keys() == {"record"}  # which stops by itself, between epochs
        extra |= {"minutes": options.minutes} if slices else {}
        with time_limit(math.inf if slices else 60 * options.minutes):
            for name in chosen:
                _run(room, name, options.full, options.draw, extra)
    except (UsageError, DataError) as error:
        return print_user_error(f"python -m {room}: {error}")
    except Interrupted:
        return 130
    return 0


def _module(room: str, name: str) -> ModuleType:
    return importlib.import_module(f"{room}.{name}")


def _run(room: str, name: str, full: bool, draw: bool, extra: Mapping[str, Any]) -> None:
    module = _module(room, name)
    if extra and name != "record":
        raise UsageError(f"{', '.join(f'--{option}' for option in extra)}: for the experiment record, not {name}")
    file = ROOT / room / "results" / f"{name}{'_full' if full else ''}.json"
    if draw:
        if not file.exists():
            raise UsageError(f"--draw: there is no {file.relative_to(ROOT)}")
        result = json.loads(file.read_text())
    else:
        result = to_json({"provenance": provenance([]), "full": full, **module.run(full, **extra)})
        write_json(file, result)
    module.figure(result, file.with_suffix(".png"))
    module.table(result)
    written = [file.with_suffix(".png")] if draw else [file, file.with_suffix(".png")]
    print("wrote " + " and ".join(str(path.relative_to(ROOT)) for path in written))
