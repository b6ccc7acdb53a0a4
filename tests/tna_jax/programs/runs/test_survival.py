"""Runs that are killed, starved, shared and poisoned: nothing is lost, and the result is that of an undisturbed run."""

import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import placement as placement_lib
from tna_jax.io import restore
from tna_jax.io.restore import listed
from tna_jax.programs.cli.main import main
from tna_jax.programs.runs import lock
from tna_jax.programs.train import run as train

ROOT = Path(__file__).resolve().parents[4]
TINY = ["--width", "8", "--depth", "1", "--members", "3", "--train-examples", "200", "--checkpoint-every", "1"]
"""Fewer models than the test's devices, which is no multiple of them either."""


def process(*words: str, devices: int = 8) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tna_jax", *words, "--cpu-devices", str(devices)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def epochs_logged(out: Path) -> int:
    file = out / "metrics.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def result(out: Path, name: str = "train.json") -> dict:
    found = json.loads((out / name).read_text())
    return {key: value for key, value in found.items() if key != "provenance"}


def final(out: Path) -> dict[str, np.ndarray]:
    folder = out / "checkpoints"
    return restore.arrays(folder, listed(folder)[0])


def assert_same_bytes(a: Path, b: Path) -> None:
    first, second = final(a), final(b)
    assert list(first) == list(second)
    for name, array in first.items():
        assert array.dtype == second[name].dtype and array.tobytes() == second[name].tobytes(), name
    assert result(a) == result(b)


def killed_and_resumed(out: Path, words: list[str], kills: int, rng: random.Random) -> None:
    """Starts the run and kills it with SIGKILL at random moments: in the middle of training, or at any other."""
    for kill in range(kills):
        again = out.exists()
        if again and (out / "train.json").exists():
            pytest.fail(f"it finished after {kill} kills: train longer")
        started = process("train", *words, "--out", str(out), *["--resume"] * again)
        before = epochs_logged(out)
        deadline = time.monotonic() + (150 if kill % 3 < 2 else rng.uniform(0, 6))
        while epochs_logged(out) <= before and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.4) if kill % 3 < 2 else 0)
        started.kill()
        text, _ = started.communicate()
        assert "Traceback" not in text, text


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("placement", "kills"), [("map", 1), ("map", 32), ("loop", 6), ("vmap", 6)])
def test_killed_many_times_it_ends_with_the_same_bytes(tmp_path, placement, kills):
    words = [*TINY, "--epochs", str(12 * kills), "--placement", placement]
    killed_and_resumed(tmp_path / "cut", words, kills, random.Random(kills))
    for out, more in (("cut", ["--resume"]), ("whole", [])):
        text, _ = (run := process("train", *words, "--out", str(tmp_path / out), *more)).communicate()
        assert run.returncode == 0, text
    assert_same_bytes(tmp_path / "whole", tmp_path / "cut")


class Cut(Exception):
    """Stands for the end of a process."""


@contextlib.contextmanager
def cut_after(monkeypatch, epochs: int):
    """The program ends without ceremony after some epochs."""
    log = train.Run.log

    def logged(self, **values):
        log(self, **values)
        if values["step"] + 1 >= epochs:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "log", logged)
        with pytest.raises(Cut):
            yield


def test_cut_and_resumed_it_ends_with_the_same_bytes(monkeypatch, capsys):
    """Within this process; those that are killed are slow."""
    words = ["train", *TINY, "--epochs", "3"]
    assert main([*words, "--out", "whole"]) == 0
    with cut_after(monkeypatch, 2):
        main([*words, "--out", "cut"])
    assert listed(Path("cut/checkpoints").absolute()) and not Path("cut/train.json").exists()
    assert main(["resume", "cut"]) == 0
    assert_same_bytes(Path("whole"), Path("cut"))
    assert [json.loads(line)["step"] for line in Path("cut/metrics.jsonl").read_text().splitlines()] == [0, 1, 2]
    capsys.readouterr()
    assert main(["runs", "."]) == 0
    assert capsys.readouterr().out.count("finished") == 2


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["map", "loop", "vmap"])
def test_resumed_with_any_placement_and_on_other_devices(tmp_path, monkeypatch, placement):
    words = ["train", *TINY, "--epochs", "3", "--placement", placement]
    assert main([*words, "--out", "whole"]) == 0
    assert main([*words, "--seed", "1", "--out", "other"]) == 0
    with cut_after(monkeypatch, 2):
        main([*words, "--out", "cut"])
    if placement != "map":
        assert main(["resume", "cut"]) == 0
        assert_same_bytes(Path("whole"), Path("cut"))
        assert result(Path("other"))["models"] != result(Path("cut"))["models"]
        return
    mesh, sizes = placement_lib.mesh, []

    def two(devices=None):
        found = mesh(devices or jax.devices()[:2])
        sizes.append(found.size)
        return found

    monkeypatch.setattr(placement_lib, "mesh", two)  # the last epoch on two devices instead of eight
    assert main(["resume", "cut"]) == 0
    assert 2 in sizes
    for name, array in final(Path("whole")).items():
        np.testing.assert_allclose(final(Path("cut"))[name], array, rtol=1e-5, atol=1e-6)
    kernel = "params/Dense_0/kernel"
    assert not np.allclose(final(Path("other"))[kernel], final(Path("cut"))[kernel], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("left", [["provenance.json"], *slow([], [".config.json.x1.unfinished", ".lock"])])
def test_killed_before_anything_was_written_the_run_starts_anew(tmp_path, left):
    out = tmp_path / "run"
    out.mkdir()
    for name in left:
        (out / name).write_text("{")
    assert main(["train", *TINY, "--epochs", "1", "--out", str(out), "--resume"]) == 0
    assert not list(out.glob("*.unfinished"))
    assert result(out)["models"]


@pytest.mark.parametrize("placement", ["map", *slow("loop", "vmap")])
def test_a_member_that_goes_nan_leaves_the_others_bit_for_bit(tmp_path, monkeypatch, capsys, placement):
    words = ["train", *TINY, "--epochs", "2", "--placement", placement]
    assert main([*words, "--out", "clean"]) == 0
    build = train.build

    def poisoned(*args):
        start = build(*args)
        jax.tree.leaves(start.params)[0][1] = np.nan
        return start

    monkeypatch.setattr(train, "build", poisoned)
    assert main([*words, "--out", "ill"]) == 0
    assert "model 1 diverged in epoch 0; the others do not depend on it" in capsys.readouterr().err
    clean, ill = (result(Path(name))["models"] for name in ("clean", "ill"))
    assert [model["diverged_in_epoch"] for model in ill] == [None, 0, None]
    assert [ill[0], ill[2]] == [clean[0], clean[2]]
    assert ill[1] != clean[1]
    for name, array in final(Path("clean")).items():
        other = final(Path("ill"))[name]
        assert array[[0, 2]].tobytes() == other[[0, 2]].tobytes(), name


@pytest.mark.slow
def test_a_second_program_in_the_folder_is_refused_and_a_killed_one_lets_go(tmp_path, capsys):
    out = tmp_path / "run"
    first = process("train", *TINY, "--epochs", "100000", "--out", str(out))
    try:
        while epochs_logged(out) < 1:
            assert first.poll() is None, first.communicate()
            time.sleep(0.02)
        before = (out / "config.json").read_bytes()
        for words in (["--resume"], ["--overwrite"]):
            assert main(["train", *TINY, "--epochs", "100000", "--out", str(out), *words]) == 2
            told = capsys.readouterr().err.strip().splitlines()
            assert told[-1].startswith(f"tna train: {out} is in use by process {first.pid} on ")
        assert main(["runs", str(tmp_path)]) == 0
        assert "running, epoch" in " ".join(capsys.readouterr().out.split())
        assert (out / "config.json").read_bytes() == before and first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert not lock.held(out)
    assert main(["runs", str(tmp_path)]) == 0
    assert "interrupted, epoch" in " ".join(capsys.readouterr().out.split())


@contextlib.contextmanager
def mounted(folder: Path, *options: str):
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_in_one_line_and_it_goes_on_later(tmp_path, capsys):
    words = ["train", *TINY, "--width", "200", "--epochs", "4"]
    assert main([*words, "--out", str(tmp_path / "whole"), "--checkpoint-every", "4"]) == 0
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1000k", "tmpfs") as small:
        capsys.readouterr()
        assert main([*words, "--out", str(small / "run"), "--checkpoints-kept", "4"]) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert "No space left on device" in told[-1] and f"tna resume {small}/run" in told[-1], told
        assert "Traceback" not in "".join(told)
        (step, *_) = listed(small / "run" / "checkpoints")
        assert 1 <= step < 4
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert main(["resume", str(small / "run")]) == 0
        assert_same_bytes(tmp_path / "whole", small / "run")


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_stops_the_run_in_one_line(tmp_path, monkeypatch, capsys):
    out, log, stack = tmp_path / "run", train.Run.log, contextlib.ExitStack()

    def logged(self, **values):
        log(self, **values)
        if values["step"] == 1:
            while listed(self.checkpoints) != [1]:
                time.sleep(0.01)
            stack.enter_context(mounted(self.checkpoints, "--bind", str(self.checkpoints)))
            subprocess.run(["mount", "-o", "remount,ro,bind", str(self.checkpoints)], check=True)

    with stack, monkeypatch.context() as patch:
        patch.setattr(train.Run, "log", logged)
        assert main(["train", *TINY, "--epochs", "4", "--out", str(out)]) == 2
        gc.collect()  # warnings are errors here: none of work that never started
        told = capsys.readouterr().err.strip().splitlines()
        assert "Read-only file system; checkpoint 1 is intact" in told[-1], told
    assert main(["resume", str(out)]) == 0
    assert main(["train", *TINY, "--epochs", "4", "--out", "whole"]) == 0
    assert_same_bytes(out, Path("whole"))
