"""What comes last in a program: numbers on the terminal even where the figure cannot be written, which is there whole or not at all."""

import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.reports.blocks import Description
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.present import present

resource = pytest.importorskip("resource", reason="limits of POSIX")
LINE = Curve("one", [0, 1, 2], [0.1, 0.5, 0.2])
FIGURE = Curves(title="Accuracy", alt="A line.", curves=[LINE], xaxis="epoch", yaxis="accuracy", png=True)
SHOWN = Description("What was computed", blocks=[FIGURE], remarks=["the accuracy is 0.5"])


def test_a_figure_without_room_takes_no_number_away(tmp_path, capsys):
    file = tmp_path / "lmc.png"
    present(SHOWN, file)
    whole = file.read_bytes()
    assert whole.startswith(b"\x89PNG") and capsys.readouterr().out.count("the accuracy is 0.5") == 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))
    try:
        with pytest.raises(
            UsageError, match=f"^cannot write {file}: File too large; .* tna report {tmp_path} draws them too$"
        ):
            present(SHOWN, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]
    assert "the accuracy is 0.5" in capsys.readouterr().out
