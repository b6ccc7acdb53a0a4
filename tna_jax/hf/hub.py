"""Fetches model folders from the Hugging Face Hub. Checkpoints by name (`tna_jax.hf.cache`) use it too."""

from pathlib import Path

from tna_jax.hf.config import CONFIG
from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import INDEX, SINGLE

FILES = (CONFIG, INDEX, "model*.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
         "vocab.txt", "vocab.json", "merges.txt")  # fmt: skip
"""Weights and what says how their inputs are made: a ViT's scaling of images, a tokenizer in either form."""


def fetch(repo: str, folder: str | Path, revision: str | None = None) -> Path:
    """Downloads what `hf.load` and `hf.load_tokenizer` read of a repository, and returns its folder.

    Args:
      repo: `google-bert/bert-base-uncased`.
      folder: to write to; what is there already is not fetched again.
      revision: branch, tag or commit; a commit fixes what is fetched.

    Raises:
      UsageError: the library huggingface_hub is not installed, the hub cannot be reached or refuses, or the repository holds no
        safetensors.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise UsageError("fetching needs huggingface_hub: pip install 'tna-jax[hf]'") from error
    try:
        snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=list(FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot fetch {repo}: {first}") from error
    if not any((Path(folder) / name).is_file() for name in (INDEX, SINGLE)):
        raise UsageError(f"{repo} holds neither {SINGLE} nor {INDEX}: choose a revision that has safetensors")
    return Path(folder)
