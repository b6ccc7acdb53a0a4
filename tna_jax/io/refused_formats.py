"""What a file is that is not a safetensors file. A pickle can run any code when it is opened, so none is read."""

from pathlib import Path

CONVERT = (
    "it holds pickled weights, which could run any code when opened and are not read here; convert it where you trust it: "
    'safetensors.torch.save_file(torch.load(file, weights_only=True), "model.safetensors")'
)
HTML = "it is a web page, not the file: a download that went wrong, or one that asks for a login"
STARTS = {
    b"PK\x03\x04": CONVERT,
    b"\x80\x02": CONVERT,
    b"\x80\x03": CONVERT,
    b"\x80\x04": CONVERT,
    b"\x80\x05": CONVERT,
    b"\x93NUMPY": "it is a NumPy array; tna_jax.io.safetensors.save(file, tree) writes a tree of arrays as safetensors",
    b"version ": "it is a pointer of Git LFS, not the file itself: fetch it with git lfs pull",
    b"<!DOCTYP": HTML,
    b"<!doctyp": HTML,
    b"<html": HTML,
    b"<HTML": HTML,
    b"GGUF": "it is a GGUF file, whose weights are mostly quantized codes; merge the safetensors that it was made of",
    b"\x89HDF\r\n": "it is an HDF5 file; read it with its own library and write it with safetensors.numpy.save_file",
}
"""How files start that are passed for safetensors files, and what to say of them. `torch.save` writes zip files."""
NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "flax_model.msgpack")
"""Files of a folder that hold weights in a form that is not read."""


def hint(file: str | Path) -> str:
    """Returns what a file is, in words, by its first bytes; empty if they are not known."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(8)
    except OSError:
        return ""
    if start.startswith(b"PK\x03\x04") and str(file).endswith((".npz", ".zip")):
        return "it is a zip file; safetensors.numpy.save_file writes arrays as safetensors"
    return next((words for magic, words in STARTS.items() if start.startswith(magic)), "")


def in_folder(folder: str | Path) -> str:
    """Returns which files of a folder without safetensors files hold weights, and how to convert them; empty if none does."""
    names = [name for name in NAMES if (Path(folder) / name).is_file()]
    return f" but {', '.join(names)}: {CONVERT}" if names else ""
