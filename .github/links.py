"""`make links`: asks for every address on the network that the pages, templates and docstrings link to, and names those that do not answer.

For the nightly job: an address that is gone tonight may be back tomorrow, so no test of a change stands on it. Standard library only.
"""

import concurrent.futures
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from address import PLACEHOLDER, current, files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"https?://[^\s<>\"'`|)\]}\\]+")
SUFFIXES = (".md", ".cff", ".toml", ".yml")
EXAMPLES = re.compile(r"//(localhost|127\.0\.0\.1|[\w.-]*\.?example)\b|/OWNER\b")
"""Addresses that stand for the reader's own."""
REFUSED = (401, 403, 405, 429)
"""Answers of a server that is there and speaks to browsers only."""
TRIES = 3


def links() -> dict[str, list[str]]:
    """Returns every address to the files that hold it."""
    held: dict[str, list[str]] = {}
    for path in files(ROOT):
        if path.suffix in SUFFIXES and path.name != "mkdocs.yml":
            for link in LINK.findall(path.read_text(encoding="utf-8")):
                held.setdefault(link.rstrip(".,;:*"), []).append(str(path.relative_to(ROOT)))
    owner, name = current()
    ours = f"github.com/{owner}/{name}"
    return {
        link: where
        for link, where in held.items()
        if not EXAMPLES.search(link) and not (owner == PLACEHOLDER and (ours in link or PLACEHOLDER in link))
    }


def problem(link: str) -> str:
    """Returns what is wrong with an address; empty if it answers."""
    said = ""
    for attempt in range(TRIES):
        try:
            request = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0 (links of tna_jax)"})
            with urllib.request.urlopen(request, timeout=20):
                return ""
        except urllib.error.HTTPError as error:
            if error.code in REFUSED:
                return ""
            said = f"{error.code} {error.reason}"
        except OSError as error:
            said = str(error)
        time.sleep(2**attempt)
    return said


def main() -> int:
    """Returns 1 if an address does not answer."""
    held = links()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wrong = {link: said for link, said in zip(held, pool.map(problem, held), strict=True) if said}
    for link, said in wrong.items():
        print(f"{link}: {said} ({', '.join(sorted(set(held[link])))})")
    print(f"{len(held)} addresses, {len(wrong)} do not answer")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
