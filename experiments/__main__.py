"""`python -m experiments NAME ...`: runs experiments and writes their results, a JSON and a PNG each, to experiments/results/.

`python -m experiments` lists them. `all` stands for those that fit about an hour of two cores, `everything` for every one, about
seven hours. `--full` takes the sizes meant for a GPU. What is finished is not computed again; `--draw` draws figures and tables of
the committed results and computes nothing.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

from train import hosts
from train.errors import UsageError, unknown
from train.launch import Interrupted
from train.results import plain, provenance, write_json

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = ("figure2", "figure3", "figure4", "figure5", "theorem", "anchors", "depth", "landscape", "rivals",
         "multi_fusion", "federated", "pretraining", "soup", "cold")  # fmt: skip
GROUPS = {"all": ("figure2", "figure3", "figure4", "theorem", "landscape", "rivals"), "everything": NAMES}


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*NAMES, *GROUPS))}")
    parser.add_argument("--full", action="store_true", help="the size for a GPU")
    parser.add_argument("--draw", action="store_true", help="figures and tables of the results that are there")
    options = parser.parse_args(arguments)
    if not options.names:
        for name in NAMES:
            print(f"{name:12} {(_module(name).__doc__ or '').splitlines()[0]}")
        for name, members in GROUPS.items():
            print(f"{name:12} {', '.join(members)}")
        return 0
    try:
        for name in options.names:
            if name not in (*NAMES, *GROUPS):
                raise unknown("experiment", name, [*NAMES, *GROUPS])
        names = dict.fromkeys(member for name in options.names for member in GROUPS.get(name, (name,)))
        hosts.configure(members=1_000_000)
        for name in names:
            _run(name, options.full, options.draw)
    except UsageError as error:
        return hosts.complain(f"experiments: {error}")
    except Interrupted:
        return 130
    return 0


def _module(name: str):
    return importlib.import_module(f"experiments.{name}")


def _run(name: str, full: bool, draw: bool) -> None:
    module = _module(name)
    file = RESULTS / f"{name}{'_full' if full else ''}.json"
    if draw:
        if not file.exists():
            raise UsageError(f"--draw: there is no {file.relative_to(RESULTS.parents[1])}")
        result = json.loads(file.read_text())
    else:
        result = plain({"provenance": provenance([]), "full": full, **module.run(full)})
        write_json(file, result)
    module.figure(result, file.with_suffix(".png"))
    module.table(result)
    written = [file.with_suffix(".png")] if draw else [file, file.with_suffix(".png")]
    print("wrote " + " and ".join(str(path.relative_to(RESULTS.parents[1])) for path in written))


if __name__ == "__main__":
    sys.exit(main())
