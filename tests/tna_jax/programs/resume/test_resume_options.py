"""What `tna resume` passes on: every option that was given, 0 and all, and none that was not."""

from tna_jax.programs.cli import parsing
from tna_jax.programs.resume.options import ResumeOptions
from tna_jax.programs.resume.run import overrides


def test_zero_is_a_value():
    settings = ResumeOptions(
        run="r", coordinator="host:1", num_processes=2, process_id=0, checkpoint_minutes=0.0, download=True
    )
    assert overrides(settings) == {
        "coordinator": "host:1", "num_processes": 2, "process_id": 0, "checkpoint_minutes": 0.0, "download": True
    }  # fmt: skip
    words = parsing.to_words(overrides(settings))
    assert words[words.index("--process-id") + 1] == "0"
    assert overrides(ResumeOptions(run="r")) == {}
