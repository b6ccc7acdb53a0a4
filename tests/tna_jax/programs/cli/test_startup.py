"""Help, version and refusals: no JAX, the right exit code, no traceback, also for Ctrl-C while JAX is imported."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from tests.parameters import slow, slow_but

HEAVY = ("jax", "flax", "optax", "matplotlib", "tna_jax.masks")
PROGRAM = """
import sys
{before}
from tna_jax.programs.cli.main import main
code = main({words!r})
heavy = [name for name in {heavy!r} if name in sys.modules]
print("heavy:", heavy)
sys.exit(code)
"""
REFUSED = [
    ("lcm", "no program 'lcm': did you mean 'lmc'?"),
    ("lmc --epoch 3", "did you mean --epochs"),
    ("lmc --epochs three", "--epochs"),
    ("lmc --placement vmpa", "did you mean 'vmap'"),
    ("lmc --alphas 4", "odd number"),
    ("lmc --alphas 0 0.5", "missing: 1"),
    ("train --model resnet20 --depth 3", "--model resnet20 has no --depth"),
    ("train --model bert", "--model bert reads text"),
    ("train --optimizer adam --momentum 0.9", "--momentum: adam has none"),
    ("train --dataset digit", "did you mean 'digits'"),
    ("train --where (", "no regular expression"),
    ("train --soft 0.5 --trainable-scale 2", "do not go together"),
    ("train --log tensorbord", "did you mean 'tensorboard'"),
    ("train --config gone.json", "gone.json"),
    ("barrier", "RUN is missing: run folder of tna train (or tna lmc); tna barrier --help explains"),
    ("landscape run --models 0 1", "three different numbers"),
    ("fuse run --matching wieght", "did you mean 'weight'"),
    ("rebasin run --restarts 0", "--restarts must be at least 1"),
    ("pretrain --model vit --augmentation 2", "--augmentation must lie in [0, 1]"),
    ("soup --checkpoint x --models y z", "exclude each other"),
    ("cold --checkpoint x --tasks tre crr", "did you mean 'trec'"),
    (
        "merge a.safetensors b.safetensors",
        "--out PATH (or -o) is missing: file or folder to write; tna merge --help explains all options",
    ),
    ("merge a.safetensors -o b.safetensors", "name two or more models"),
    ("federate --server adam", "needs --server-learning-rate"),
    ("import", "name one or more files"),
    ("export", "RUN"),
    ("report run --split trian", "did you mean 'train'"),
    ("resume run --epochs 3", "Unrecognized options: --epochs"),
    ("completion tcsh", "bash, zsh, fish"),
    ("devices --precision bf6", "did you mean 'bf16'"),
]
SHOWN = ["", "--help", "--version", "lmc --help", "train --help-all", "federate -h", "merge --help", "resume --help"]


def started(words: list[str], before: str = "") -> subprocess.CompletedProcess:
    code = PROGRAM.format(words=words, heavy=HEAVY, before=before)
    before_it = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    # Half a second of processor time, or what JAX takes; by the clock a busy machine took half a minute.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_it < 15
    return done


@pytest.mark.parametrize("words", slow_but(["lmc --help"], SHOWN))
def test_help_and_version_import_no_jax(words):
    done = started(words.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("heavy: []\n") and len(done.stdout) > 20


@pytest.mark.parametrize(("words", "expected"), [REFUSED[0], *slow(*REFUSED[1:])])
def test_refusals_import_no_jax(words, expected):
    done = started(words.split())
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr and len(done.stderr.splitlines()) == 1
    assert done.stdout == "heavy: []\n"


@pytest.mark.slow
def test_a_program_that_runs_is_seen_to_import_it():
    done = started(["barrier", "gone"])
    assert done.returncode == 2 and "gone is not a run folder" in done.stderr
    assert "'jax'" in done.stdout


@pytest.mark.parametrize("name", ["tyro", *slow("rich", "orbax", "matplotlib")])
def test_without_the_extra_the_command_says_what_to_install(name):
    done = started(["barrier", "gone"], f"sys.modules[{name!r}] = None")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "pip install 'tna-jax[cli]'" in line and name in line
    assert started(["--help"], f"sys.modules[{name!r}] = None").returncode == 0


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
class Stops:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("reached", flush=True)
            import time
            time.sleep(60)
sys.meta_path.insert(0, Stops())
sys.argv = ["tna", "barrier", "gone"]
from tna_jax.programs.cli.main import main
sys.exit(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("module", ["tyro", "jax"])
def test_ctrl_c_before_the_program_begins_is_one_line(module):
    words = [sys.executable, "-c", INTERRUPTED.format(module=module)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "reached\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "tna barrier: stopped at once"
