"""The API reference: a page for every module of `tna_jax`, found by looking, so that none can be forgotten.

Names of the API in backticks, on any page and in any docstring, become links to where they are explained.
"""

import importlib
import inspect
import pkgutil
import re

from mkdocs.structure.files import File

import tna_jax

GROUPS = {
    "Anchors": ("masks", "transform", "checks", "prng"),
    "Ensembles": ("ensemble", "networks", "objectives", "metrics", "placement", "augment"),
    "Paths and barriers": ("alphas", "interpolation", "connectivity", "curves"),
    "Averages and fine-tuning": ("averaging", "finetuning", "corruptions", "cold_fusion", "linear_probe", "masked_lm"),
    "Matching and repair": ("matching", "repair"),
    "Merging": ("merging",),
    "Theory": ("theory",),
    "Networks": ("models",),
    "Federated learning": ("federated",),
    "Files and runs": ("io",),
    "Hugging Face folders": ("hf",),
    "Flower": ("flower",),
}
"""Where a module, or a package with all its modules, is listed; what is named nowhere comes last."""
REST = "Under the hood"
INSIDE = (
    "tna_jax.programs", "tna_jax.__main__",
    "tna_jax.flower.apps", "tna_jax.flower.messages", "tna_jax.flower.nodes", "tna_jax.flower.strategy",
)  # fmt: skip
"""Not in the reference: the command line, and what needs Flower installed (docs/flower.md explains it)."""
CODE = re.compile(
    r"(<pre.*?</pre>|<a\b.*?</a>|<h\d.*?</h\d>|<autoref.*?</autoref>)|<code>([\w.]+)(\([^<]*\))?</code>", re.DOTALL
)


def modules() -> list[str]:
    """All modules of `tna_jax` by name, packages before what they hold."""
    found = [info.name for info in pkgutil.walk_packages(tna_jax.__path__, "tna_jax.")]
    return [name for name in found if "._" not in name and not name.startswith(INSIDE)]


def public(module: str) -> list[str]:
    """The public functions, classes and constants that a module defines (not those it imports)."""
    loaded = importlib.import_module(module)
    found = []
    for name, value in vars(loaded).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        here = getattr(value, "__module__", None) == module
        if here if (inspect.isfunction(value) or inspect.isclass(value)) else assigned(loaded, name):
            found.append(name)
    return found


def exported(module: str) -> dict[str, str]:
    """The names that a package offers and another module of it defines, to their full names there."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", ()) if hasattr(loaded, "__path__") else ()
    homes = {name: definition(loaded, name) for name in names if name not in public(module)}
    return {name: home for name, home in homes.items() if home}


def definition(module, name: str) -> str:
    """The full name of a function or class that a package offers; nothing for what does not say where it is from, or needs Flower."""
    try:
        value = getattr(module, name)
    except ModuleNotFoundError:
        return ""
    home = getattr(value, "__module__", None) or ""
    described = (inspect.isfunction(value) or inspect.isclass(value)) and home.startswith("tna_jax.")
    return f"{home}.{value.__name__}" if described and not home.startswith(INSIDE) else ""


def assigned(module, name: str) -> bool:
    """Whether a module gives a name its value itself."""
    return re.search(rf"^{name}\b[^=\n(]*=[^=]", inspect.getsource(module), re.MULTILINE) is not None


def grouped() -> dict[str, list[str]]:
    """The modules of each group."""
    found: dict[str, list[str]] = {group: [] for group in (*GROUPS, REST)}
    for module in modules():
        top = module.split(".")[1]
        found[next((group for group, names in GROUPS.items() if top in names), REST)].append(module)
    return {group: names for group, names in found.items() if names}


def place(module: str) -> str:
    """The page of a module."""
    return f"reference/{module.removeprefix('tna_jax.')}.md"


def on_config(config):
    """Puts the pages into the navigation."""
    entries = [
        {group: [{name.removeprefix("tna_jax."): place(name)} for name in names]} for group, names in grouped().items()
    ]
    for entry in config.nav:
        for title, target in entry.items():
            if target == "reference/":
                entry[title] = ["reference/index.md", *entries]
    return config


def on_files(files, config):
    """Adds the pages."""
    for module in modules():
        files.append(File.generated(config, place(module), content=page(module)))
    files.append(File.generated(config, "reference/index.md", content=index()))
    return files


def page(module: str) -> str:
    """The page of a module: what it defines, not what it imports."""
    loaded = importlib.import_module(module)
    together = [name for name in public(module) if not alone(loaded, name)]
    members = [name for name in public(module) if name not in together]
    lines = [f"::: {module}", "    options:", f"      members: {members or 'false'}", ""]
    if together:
        lines += ["## Constants", ""]
    lines += [f"- [](){{#{module}.{name}}}`{name}` = `{getattr(loaded, name)!r}`" for name in together]
    if homes := exported(module):
        lines += ["", "## Names", ""]
        lines += [f"- [`{name}`][{home}]: {summary(getattr(loaded, name))}" for name, home in homes.items()]
    return "\n".join(lines) + "\n"


def alone(module, name: str) -> bool:
    """Whether a name is no constant, or one with an assignment of its own; others are not seen by mkdocstrings."""
    value = getattr(module, name)
    own = inspect.isfunction(value) or inspect.isclass(value)
    return own or re.search(rf"^{name}\s*(:[^=\n]+)?=[^=]", inspect.getsource(module), re.MULTILINE) is not None


def index() -> str:
    """The overview: what a user starts with, and every module with its names."""
    lines = ["# API reference", "", "`import tna_jax` gives the names one starts with:", ""]
    lines += [f"- [`{name}`][{origin(name)}]: {summary(getattr(tna_jax, name))}" for name in tna_jax.__all__]
    for group, names in grouped().items():
        lines += ["", f"## {group}", "", "| module | what it is for | names |", "| --- | --- | --- |"]
        for module in names:
            homes = exported(module) | {name: f"{module}.{name}" for name in public(module)}
            links = ", ".join(f"[`{name}`][{home}]" for name, home in homes.items())
            own = f"[`{module.removeprefix('tna_jax.')}`]({place(module).removeprefix('reference/')})"
            lines.append(f"| {own} | {summary(importlib.import_module(module))} | {links} |")
    return "\n".join(lines) + "\n"


def origin(name: str) -> str:
    """The full name of what `tna_jax` re-exports."""
    value = getattr(tna_jax, name)
    return value.__name__ if inspect.ismodule(value) else f"{value.__module__}.{name}"


def summary(value) -> str:
    """The first sentence of a docstring, fit for a table."""
    return (
        " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".").replace("|", "\\|")
        + "."
    )


def names() -> dict[str, str | None]:
    """What may stand in backticks, to the full name; `None` where two modules have it."""
    known: dict[str, str | None] = {}
    for module in modules():
        short = module.removeprefix("tna_jax.")
        known |= {module: module}
        for name in public(module):
            full = f"{module}.{name}"
            known |= {full: full, f"{short}.{name}": full, f"{short.split('.')[-1]}.{name}": full}
            known[name] = None if name in known and known[name] != full else full
        for name, full in exported(module).items():
            known |= {f"{module}.{name}": full, f"{short}.{name}": full, f"{short.split('.')[-1]}.{name}": full}
    return (
        known | {name: origin(name) for name in tna_jax.__all__} | {f"tna_jax.{n}": origin(n) for n in tna_jax.__all__}
    )


KNOWN = names()


def on_page_content(content, page, config, files):
    """Makes links of names in backticks: those of the page's own module first."""
    own = f"tna_jax.{page.file.src_uri.removeprefix('reference/').removesuffix('.md')}"

    def link(match: re.Match[str]) -> str:
        skipped, name, call = match.groups()
        full = None if skipped else f"{own}.{name}" if f"{own}.{name}" in KNOWN else KNOWN.get(name)
        if not full or (
            name.islower()
            and "_" not in name
            and "." not in name
            and full != f"{own}.{name}"
            and not call
            and name not in tna_jax.__all__
        ):
            return match.group()
        return f'<autoref identifier="{full}" optional><code>{name}{call or ""}</code></autoref>'

    return CODE.sub(link, content)
