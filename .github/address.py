"""`make address URL=https://github.com/OWNER/REPOSITORY`: writes the repository's address wherever it stands.

The address is `Repository` of `[project.urls]` in pyproject.toml. All other places (badges, notebooks for Colab, the site, CITATION.cff, templates, CODEOWNERS) hold
that same address, and this replaces it in all of them; a second call with the same address changes nothing. Standard library only.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
URL = re.compile(r"https://github\.com/(?P<owner>[A-Za-z0-9][A-Za-z0-9-]*)/(?P<name>[A-Za-z0-9][\w.-]*?)(?:\.git)?/?")
PLACEHOLDER = "OWNER"
"""Stands for the owner as long as the repository has no public address."""


def parsed(url: str) -> tuple[str, str]:
    """Returns owner and name of a repository.

    Raises:
      ValueError: it is not an address of a repository on GitHub, whose workflows, badges and Colab links these are.
    """
    match = URL.fullmatch(url)
    if match is None:
        raise ValueError(f"URL must be https://github.com/OWNER/REPOSITORY, got {url!r}")
    return match["owner"], match["name"]


def current(root: Path = ROOT) -> tuple[str, str]:
    """Returns owner and name that pyproject.toml holds."""
    return parsed(tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Repository"])


def files(root: Path) -> list[Path]:
    """Returns the committed and new text files of a checkout."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, text=True).splitlines()
    return [root / name for name in listed if (root / name).is_file()]


def replaced(text: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """Returns a text with the new address: of the repository, of its pages, of its owner as a reviewer (CODEOWNERS)."""
    end = r"(?![\w-])"
    for form in (r"github.com/{}/{}", r"colab.research.google.com/github/{}/{}", r"{}.github.io/{}", r"* @{}"):
        pattern = re.escape(form).replace(r"\{\}", "{}").format(*map(re.escape, old)) + end
        text = re.sub(pattern, form.format(*new), text)
    return text


def write(new: tuple[str, str], root: Path = ROOT) -> list[Path]:
    """Writes a new address everywhere and returns the files that changed."""
    old, changed = current(root), []
    for path in files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a figure
        if (renewed := replaced(text, old, new)) != text:
            path.write_text(renewed, encoding="utf-8")
            changed.append(path)
    return changed


def main(arguments: list[str]) -> int:
    """Writes the address that is given; without one, prints that of today."""
    if not arguments or not arguments[0]:
        print("https://github.com/" + "/".join(current()))
        return 0
    try:
        changed = write(parsed(arguments[0]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([f"{len(changed)} files changed", *(str(path.relative_to(ROOT)) for path in changed)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
