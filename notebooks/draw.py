"""`python -m notebooks.draw [NUMBER...]`: runs notebooks as programs, minutes each, and keeps the last picture of each for its .ipynb.

A picture is small (80 dots an inch, 64 colors) and has no date in it: the same numbers draw the same bytes. `python -m notebooks` puts the pictures into the
.ipynb; nothing else that a notebook prints is stored.
"""

import contextlib
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from notebooks.__main__ import PICTURES, SOURCES, draws


def draw(source: Path, picture: Path) -> None:
    """Runs a source in this process, in a folder of its own for what it writes, and keeps its last picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    plt.show = lambda *arguments, **options: None
    source, picture = source.absolute(), picture.absolute()
    if folder := os.environ.get("TNA_DATA_DIR"):
        os.environ["TNA_DATA_DIR"] = os.path.abspath(folder)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        runpy.run_path(str(source), run_name="__main__")
    picture.parent.mkdir(exist_ok=True)
    plt.figure(plt.get_fignums()[-1]).savefig(picture, dpi=80, metadata={"Software": None})
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(64)
    small.save(picture, optimize=True)


def main() -> None:
    """Draws those that are asked for, by their numbers; default: all that have a picture."""
    words = sys.argv[1:]
    if words and words[0].endswith(".py"):
        source = Path(words[0])
        draw(source, PICTURES / f"{source.stem}.png")
        return
    for source in SOURCES:
        if draws(source) and (not words or source.stem.split("_")[0] in words):
            subprocess.run([sys.executable, "-m", "notebooks.draw", str(source)], check=True)
            print(source.stem, flush=True)


if __name__ == "__main__":
    main()
