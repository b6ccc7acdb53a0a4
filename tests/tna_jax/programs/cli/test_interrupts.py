"""Ctrl-C, twice and anywhere: a command ends within seconds, says so in a line, and loses nothing that it had saved."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tna_jax.io.restore import contents, listed
from tna_jax.programs.cli import interrupts, progress
from tna_jax.programs.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

HELD = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
from tna_jax.programs.cli import interrupts
interrupts.GRACE = 0.5
sys.argv = ["tna", "train"]
with interrupts.begin():
    {started}
    interrupts.hand_over()
    while True:
        try:
            print("reached", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            {stopped}
"""
HOLDING = {
    "an exception that is lost": ("", "pass"),
    "a thread that nobody can stop": ("threading.Thread(target=threading.Event().wait).start()", "break"),
}


@pytest.mark.parametrize("case", HOLDING)
def test_whatever_holds_a_stopped_command_it_ends(case):
    started, stopped = HOLDING[case]
    process = subprocess.Popen(
        [sys.executable, "-c", HELD.format(started=started, stopped=stopped)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "reached\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "tna train: stopped at once; what was saved before is intact\n"


STOPPED = """
import hashlib, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.{hang_up})
from tna_jax.programs.cli import interrupts, launch
interrupts.GRACE = 0.5
sys.argv = ["tna", "barrier"]

def program():
    print("reached", flush=True)
    {doing}

with interrupts.begin():
    if {begun}:
        interrupts.hand_over()
        code = launch.guarded("barrier", program)
    else:
        program()
    interrupts.leave(code)
"""
SAVED = "tna barrier: stopped at once; what was saved before is intact\n"
MOMENTS = {
    "while it is imported": (False, "threading.Event().wait()", "\ntna barrier: stopped at once\n"),
    "while it runs": (True, "threading.Event().wait()", SAVED),
    "while its main thread computes, and looks at no signals": (True, "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)", SAVED),
}  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_program_that_trains_nothing_says_goodbye_whatever_stops_it(moment, number):
    begun, doing, expected = MOMENTS[moment]
    process = started(STOPPED.format(begun=begun, doing=doing, hang_up="SIG_DFL"))
    process.send_signal(number)
    if number == signal.SIGHUP:
        process.send_signal(number)  # the system says it, and the shell says it
    assert ended(process) == (130, expected)


def test_under_nohup_a_closed_terminal_ends_no_program():
    process = started(STOPPED.format(begun=True, doing="sys.stdin.readline()", hang_up="SIG_IGN"))
    process.send_signal(signal.SIGHUP)
    assert ended(process, "go on\n") == (0, "")


def ended(process: subprocess.Popen[str], more: str | None = None) -> tuple[int, str]:
    """The exit code of a process, and what it said at the end."""
    try:
        _, said = process.communicate(more, timeout=30)
    finally:
        process.kill()
    return process.returncode, said


def started(script: str) -> subprocess.Popen[str]:
    """A process that has printed `reached`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script], text=True, **pipes)
    assert process.stdout is not None and process.stdout.readline() == "reached\n"
    return process


def test_ctrl_c_while_a_save_is_handed_to_its_thread(tmp_path):
    state = {"params": {"w": np.ones(3, np.float32)}}
    begun = time.monotonic()

    def run():
        with Checkpoints(tmp_path, 100) as saved:
            saved.save(1, state)
            saved.wait()
            submit = saved.worker.submit

            def interrupted(*arguments):
                submit(*arguments)
                raise KeyboardInterrupt

            saved.worker.submit = interrupted
            saved.save(2, state)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert time.monotonic() - begun < 30 and 1 in listed(tmp_path)


def test_a_save_that_never_ends_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tna_jax.programs.runs.checkpoints.PATIENCE", 0.1)
    never = threading.Event()

    def run():
        with Checkpoints(tmp_path, 100) as saved:
            saved.store.save = lambda *_: never.wait()  # type: ignore[method-assign]
            saved.save(1, {"w": np.ones(3, np.float32)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    never.set()


def test_a_signal_in_the_middle_of_printing(monkeypatch, capfd):
    def reentrant(*_, **__):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(progress.console, "print", reentrant)
    with progress.stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "stopping after this epoch" in capfd.readouterr().err
    assert interrupts.GRACE > 2  # a run gets more than its last save does (`checkpoints.PATIENCE`)


def test_a_terminal_that_is_closed_stops_as_ctrl_c_does_however_often_it_says_so():
    before = signal.getsignal(signal.SIGHUP)
    with progress.stoppable() as stop:
        for _ in range(3):  # the system says it, and the shell says it
            signal.raise_signal(signal.SIGHUP)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is before


def test_under_nohup_a_closed_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with progress.stoppable() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


COMMAND = """
import signal, sys
from tna_jax.programs.cli import interrupts, main
signal.signal(signal.SIGINT, interrupts.stop_at_once)  # as `main` does where nothing else was set
print("reached", flush=True)
sys.argv[0] = "tna"
sys.exit(main.main())
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_connection_that_breaks_loses_no_epoch(tmp_path):
    """The terminal of the run is closed: it is told so, and whatever it prints from then on fails."""
    near, far = os.openpty()
    run, name = tmp_path / "run", os.ttyname(far)
    words = [sys.executable, "-m", "tna_jax", "train", "--epochs", "100000", "--members", "2", "--out", str(run)]
    in_terminal = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', name, *words]  # which becomes the terminal of its session
    process = subprocess.Popen(in_terminal, start_new_session=True)
    os.close(far)
    said = threading.Thread(target=_read, args=(near,), daemon=True)
    said.start()
    log = run / "metrics.jsonl"
    while not log.exists() or len(log.read_bytes().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    assert not listed(run / "checkpoints")
    os.close(near)
    assert process.wait(timeout=300) == 130
    (step,) = listed(run / "checkpoints")
    assert step >= 3 and step == len(log.read_bytes().splitlines())


def _read(descriptor: int) -> None:
    """Reads what a terminal shows, so that it is not full."""
    with contextlib.suppress(OSError):
        while os.read(descriptor, 4096):
            pass


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pairs_of_ctrl_c_at_random_moments_leave_whole_checkpoints(tmp_path):
    pairs = int(os.environ.get("TNA_INTERRUPT_PAIRS", "6"))
    moments = random.Random(0)
    train = [sys.executable, "-c", COMMAND, "train", "--epochs", "400", "--members", "2", "--checkpoint-every", "2"]
    for number in range(pairs):
        run = tmp_path / f"run{number}"
        process = subprocess.Popen(
            [*train, "--out", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "reached\n"
        time.sleep(moments.uniform(0.05, 25))
        saved = listed(run / "checkpoints")
        process.send_signal(signal.SIGINT)
        time.sleep(moments.choice([0.0, 0.002, 0.05, 0.3]))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (130, 0), (process.returncode, said)
        assert "Traceback" not in said and "Exception ignored" not in said, said
        left = listed(run / "checkpoints")
        assert not saved or (left and left[0] >= saved[0]), (saved, left)
        if left:  # what is there is whole: its arrays are read with their checksums
            assert contents(run / "checkpoints", left[0])
