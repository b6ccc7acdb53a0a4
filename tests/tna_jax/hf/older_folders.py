"""Folders as they were written before tokenizer.json was thought of."""

import json
from pathlib import Path


def write(made, kind: str, folder: str | Path, **about) -> None:
    """Writes vocab.txt (`wordpiece`) or vocab.json and merges.txt (`bpe`), and `about`, if any, as tokenizer_config.json."""
    folder = Path(folder)
    folder.mkdir()
    model = json.loads(made.backend.to_str())["model"]
    if kind == "wordpiece":
        (folder / "vocab.txt").write_text("".join(f"{w}\n" for w in sorted(model["vocab"], key=model["vocab"].get)))
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{m}\n" for m in merges))
    if about:
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
