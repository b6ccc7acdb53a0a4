"""What the pages and the launch recipes show to be run: their Python, and their commands."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
RECIPES = [f"train/recipes/{file.name}" for file in sorted((ROOT / "train" / "recipes").iterdir())]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language in a page; a script is one block of `sh`."""
    text = (ROOT / page).read_text()
    if not page.endswith(".md"):
        return [text] if language == "sh" else []
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    """The commands in a page's `sh` blocks, as words; continued lines are joined, comments dropped."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def calls(page: str, program: str) -> list[list[str]]:
    """The words after each call of a program, also where another one starts it (srun, ssh)."""
    called = []
    for words in commands(page):
        words = [part for word in words for part in (shlex.split(word) if f"{program} " in word else [word])]
        if program in words:
            called.append(words[words.index(program) + 1 :])
    return called
