"""Strict settings for every test: eight CPU devices, strict dtype promotion, no silent rank promotion, warnings as errors.

Programs are compiled quickly rather than well (`QUICK`), once for all workers and all programs that tests start: they
share one folder of compiled programs for as long as pytest runs; figures are drawn quickly too. `--optimized` compiles and
draws as users do. Flags in XLA_FLAGS stay:
`XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 make test` is a run on an older processor.
"""

import atexit
import gc
import hashlib
import os
import shutil
import tempfile
import threading
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("COLUMNS", None)  # tables as wide as a pipe takes them, whatever the terminal
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tna-test-cache-")  # compiled programs
    os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"]  # the list of trusted code
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import numpy as np
import pytest

from tests import shape_checker
from tests.xla_flags import QUICK, append_flags

shape_checker.install()
from tna_jax import backend

COMPILED: Counter[str] = Counter()
EVENTS = {
    "/jax/core/compile/backend_compile_duration": "requested",
    "/jax/compilation_cache/cache_retrieval_time_sec": "read",
}


def pytest_addoption(parser):
    parser.addoption("--optimized", action="store_true", help="compile as users do: slower to start, quicker to run")
    parser.addoption(
        "--slow-share", metavar="N:WORD", help="of the tests marked slow, only one in N, chosen by WORD (a commit)"
    )


def pytest_configure(config):
    """Brings the backend up, so that no program under test changes the number of devices."""
    if shape_checker.EVERYWHERE:
        config.pluginmanager.register(shape_checker.RefusedByShape())
    if getattr(config.option, "tx", None) and not hasattr(config, "workerinput"):
        return  # the process that hands tests out to others computes nothing
    if not config.getoption("--optimized"):
        append_flags(*QUICK)
    backend.configure(cpu_devices=8)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    lower_quickly()
    if jax.default_backend() != "cpu":
        jax.config.update(
            "jax_default_matmul_precision", "highest"
        )  # not TF32: tests compare at the precision of float32
    jax.monitoring.register_event_duration_secs_listener(count)
    # Tracing makes many objects that live: looking through all of them again and again took 15% of the suite's time. What is
    # imported by now is never looked through; a larger threshold than this lets a worker hold gigabytes of dead programs.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def lower_quickly() -> None:
    """Thousands of small programs are lowered: a seventh of their time went into the lines that each operation was written at,
    and into a new MLIR context for each program."""
    jax.config.update("jax_include_full_tracebacks_in_locations", False)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    from jax._src.interpreters import mlir

    make, contexts = mlir.make_ir_context, threading.local()

    def context_of_the_thread():
        """One context for a hundred programs: it keeps every constant that it has seen."""
        if getattr(contexts, "left", 0) == 0:
            contexts.kept, contexts.left = make(), 100
        contexts.left -= 1
        return contexts.kept

    mlir.make_ir_context = context_of_the_thread
    _array_without_a_program()


def _array_without_a_program() -> None:
    """`jnp.asarray` of an array of NumPy puts a copy on the device: jax 0.10 compiles the identity for each shape instead."""
    try:
        from jax._src.core import stage_p
        from jax._src.literals import TypedNdArray
    except ImportError:
        return
    stage = stage_p.impl

    def put(x):
        return stage(x) if not isinstance(x, TypedNdArray) or x.weak_type else jax.device_put(np.array(x))

    stage_p.def_impl(put)


def count(event: str, seconds: float, **_) -> None:
    if name := EVENTS.get(event):
        COMPILED[name] += 1
        COMPILED["seconds"] += seconds


def pytest_collection_modifyitems(config, items):
    """Leaves out the slow tests that are not in the share asked for."""
    if (share := config.getoption("--slow-share")) is None:
        return
    parts, word = share.split(":", 1)

    def chosen(item) -> bool:
        digest = hashlib.sha256(f"{word} {item.nodeid}".encode()).digest()
        return item.get_closest_marker("slow") is None or int.from_bytes(digest[:8]) % int(parts) == 0

    left_out = [item for item in items if not chosen(item)]
    items[:] = [item for item in items if chosen(item)]
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item):
    mark = item.get_closest_marker("cpu_only")
    if mark is not None and jax.default_backend() != "cpu":
        pytest.skip(f"on CPUs only: {mark.args[0]}")
    if item.get_closest_marker("optimized") and not item.config.getoption("--optimized"):
        pytest.skip("promises bits of programs as users compile them: needs --optimized, which `make test` gives")
    draw_quickly(item)


def draw_quickly(item) -> None:
    """Figures of tests that are not about drawing are drawn small and without a layout: each took half a second."""
    parts = set(item.nodeid.split("/"))
    if not {"programs", "train", "project"} & parts:
        return
    from matplotlib.figure import Figure

    save = vars(Figure).get("savefig_in_full") or Figure.savefig

    def savefig(self, *args, **options):
        self.set_layout_engine("none")
        return save(self, *args, **options | {"dpi": 20})

    in_full = item.config.getoption("--optimized") or "reports" in parts
    Figure.savefig_in_full = save
    Figure.savefig = save if in_full else savefig


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["compiled"] = dict(COMPILED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    COMPILED.update(getattr(node, "workeroutput", {}).get("compiled", {}))


def pytest_terminal_summary(terminalreporter):
    """How much was compiled: what the suite's time goes into."""
    terminalreporter.write_line(
        f"{COMPILED['requested'] - COMPILED['read']:.0f} programs compiled, {COMPILED['read']:.0f} read back compiled, "
        f"{COMPILED['seconds']:.0f} s in all workers together"
    )


@pytest.fixture
def figures(monkeypatch) -> list:
    """Every figure that is saved, as matplotlib has it."""
    from matplotlib.figure import Figure

    saved, save = [], Figure.savefig

    def savefig(self, *args, **options):
        saved.append(self)
        return save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


@pytest.fixture(autouse=True)
def runs_stay_in_a_temporary_folder(tmp_path, monkeypatch):
    """Programs write their runs where they are started."""
    monkeypatch.chdir(tmp_path)
