"""Brings into the site what the repository keeps elsewhere: README as its home, results with their figures, notebooks, changes.

Pages link to files as they lie in the repository, so that they read well there too; here those links are led to the copies in
the site. A link to anything that the site does not hold (a source file) leads to the repository's address, or keeps its text alone as long as there is none.
"""

import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages outside docs/, and their names in the site."""
FOLDERS = {
    "train/results": ("results/train", (".png", ".json")),
    "fusion/results": ("results/fusion", (".png", ".json")),
    "benchmarks/results": ("results/benchmarks", (".json",)),
    "notebooks": ("notebooks", (".ipynb",)),
}
"""Folders outside docs/, their names in the site, and which files of them are shown."""
BADGES = re.compile(r"^(?:\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)\n)+", re.MULTILINE)
"""Pictures from other servers: the site fetches nothing."""
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
PUBLIC = "/OWNER/" not in ADDRESS
"""Whether the repository has an address: links to its sources then lead there."""
LONG = ("evidence.md", "changelog.md")
"""Pages that hold every word and so come last among what a search finds."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def copies() -> dict[str, str]:
    """The files outside docs/ that the site holds: path in the repository to path in the site."""
    found = dict(PAGES)
    for folder, (name, suffixes) in FOLDERS.items():
        for file in sorted((ROOT / folder).glob("*")):
            if file.suffix in suffixes:
                found[f"{folder}/{file.name}"] = f"{name}/{file.name}"
    return found


def on_files(files, config):
    """Adds the copies."""
    for source, name in copies().items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads links to files of the repository to their places in the site."""
    if page.file.src_uri in LONG:
        page.meta.setdefault("search", {"boost": 0.2})
    places = copies()
    origin = {name: source for source, name in places.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def lead(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        if re.match(r"[a-z]+:", target):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if path.startswith("docs/"):
            place = path.removeprefix("docs/")
        elif path in places:
            place = places[path]
        elif (ROOT / path).exists():
            return f"[{text}]({ADDRESS}/blob/main/{path}{anchor or ''})" if PUBLIC and not picture else text
        else:
            return match.group()
        return (
            f"{picture}[{text}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor or ''})"
        )

    return LINK.sub(lead, BADGES.sub("", markdown))


def on_page_content(content, page, config, files):
    """Keeps a number and its spread on one line."""
    return content.replace(" ± ", "\u00a0±\u00a0")
