"""JAX's switches in a run: recorded, set again at resume, named where they cannot be; a run of before has none."""

import json
import types

import jax
import pytest

from tna_jax.io import provenance, switches
from tna_jax.io.errors import UsageError
from tna_jax.programs.system import distributed


@pytest.fixture(autouse=True)
def as_before():
    before = switches.current()
    yield
    switches.restore(before, "the tests")


OTHER = {
    "jax_default_prng_impl": "rbg", "jax_threefry_partitionable": False, "jax_enable_x64": True,
    "jax_default_matmul_precision": "highest", "jax_numpy_dtype_promotion": "standard",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_a_switch_is_recorded_and_set_again(name, tmp_path, capsys):
    recorded = json.loads(json.dumps(provenance.provenance([])))["switches"]
    (tmp_path / "provenance.json").write_text(json.dumps({"format": 1, "switches": recorded}))
    (tmp_path / "config.json").write_text("{}")  # without it nothing was begun
    jax.config.update(name, OTHER[name])
    assert switches.current()[name] == OTHER[name] != recorded[name]
    distributed._restore_switches(tmp_path)
    assert switches.current() == recorded
    assert f"{name} is {recorded[name]}, as the run was started" in capsys.readouterr().err
    distributed._restore_switches(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("held", [None, {}, {"seeds": [0]}])
def test_a_run_of_before_they_were_recorded_resumes_as_it_did(held, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    if held is not None:
        (tmp_path / "provenance.json").write_text(json.dumps(held))
    before = switches.current()
    distributed._restore_switches(tmp_path)
    assert switches.current() == before


@pytest.mark.parametrize(("name", "value"), [("jax_default_prng_impl", "no_such"), ("jax_no_such", True)])
def test_what_cannot_be_set_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"{name}={value}") as refused:
        switches.restore({name: value}, "runs/a")
    assert "\n" not in str(refused.value)


def test_programs_set_them_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "_restore_switches", lambda folder: seen.append(folder))
    seen = []
    options = {"cpu_devices": None, "coordinator": None, "distributed": False, "precision": "float32"}
    monkeypatch.setattr(distributed.backend, "configure", lambda *_: None)
    for resume in (False, True):
        distributed.start(types.SimpleNamespace(**options, resume=resume, out=str(tmp_path)), 1)
    assert seen == [tmp_path]
