"""References to the user's code: found without running anything, run only if trusted, errors in one line."""

import json
import sys
from pathlib import Path

import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.user_code import is_reference, references, resolve, trust


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "_NAMED", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "state" / "tna-jax" / "trusted.json"


def write(file: str, text: str) -> Path:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


MARK = "from pathlib import Path\nPath('ran').write_text('')\ndef create():\n    return 7\n"


def test_a_file_is_named_relatively_and_recorded_absolutely(tmp_path):
    write("net.py", MARK)
    found = resolve("./net.py:create", "--model")
    assert found.function() == 7
    assert found.reference == f"{tmp_path}/net.py:create"
    assert resolve(found.reference, "--model").function is found.function  # one function: programs compile once


def test_a_module_of_the_current_folder_is_found():
    write("own_package/__init__.py", "")
    write("own_package/inner.py", "def create():\n    return 8\n")
    assert resolve("own_package.inner:create", "--model").function() == 8


def test_a_file_may_import_its_neighbours():
    write("deep/part.py", "value = 9\n")
    write("deep/net.py", "import part\ndef create():\n    return part.value\n")
    assert resolve("deep/net.py:create", "--model").function() == 9


@pytest.mark.parametrize("reference", ["net.py:create", "pack.net:create"])
def test_a_recorded_reference_runs_nothing_before_it_is_trusted(reference):
    write("net.py", MARK)
    write("pack/__init__.py", MARK)
    write("pack/net.py", MARK)
    sha256 = references.find(reference, "--model").sha256
    for recorded in (sha256, "", "0" * 64):
        with pytest.raises(UsageError, match="--trust-code") as error:
            resolve(reference, "--model", recorded)
        assert "\n" not in str(error.value)
    assert not Path("ran").exists()
    assert resolve(reference, "--model", sha256, trust=True).function() == 7
    with pytest.raises(UsageError, match="never named by you"):  # --trust-code is for this once
        resolve(reference, "--model", sha256)


def test_what_the_user_named_is_trusted_until_it_changes(state):
    write("net.py", "def create():\n    return 1\n")
    named = resolve("net.py:create", "--model")
    assert resolve(named.reference, "--model", named.sha256).sha256 == named.sha256
    assert json.loads(state.read_text())["files"] == {named.reference.rpartition(":")[0]: [named.sha256]}
    write("net.py", MARK)
    with pytest.raises(UsageError, match="has changed since the run"):
        resolve(named.reference, "--model", named.sha256)
    assert not Path("ran").exists()


def test_a_copy_elsewhere_is_another_file():
    write("mine/net.py", "import part\ndef create():\n    return part.value\n")
    write("mine/part.py", "value = 1\n")
    sha256 = resolve("mine/net.py:create", "--model").sha256
    write("theirs/net.py", Path("mine/net.py").read_text())
    write("theirs/part.py", MARK)
    with pytest.raises(UsageError, match="never named by you"):
        resolve("theirs/net.py:create", "--model", sha256)
    assert not Path("ran").exists()


def test_a_damaged_list_trusts_nothing(state):
    write("net.py", MARK)
    sha256 = resolve("net.py:create", "--model").sha256
    for text in ("{", "[]", '{"files": 3}', json.dumps({"files": {str(Path("net.py").resolve()): sha256}})):
        state.write_text(text)
        trust._NAMED.clear()
        assert not trust.is_trusted(Path("net.py").resolve(), sha256)
        with pytest.raises(UsageError, match="never named"):
            resolve("net.py:create", "--model", sha256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value = 3\n", "has no create; it has none"),
        ("def build():\n    pass\n", "has no create; it has build"),
        ("create = 3\n", "create is int, expected a function"),
        ("x = 1\nraise ValueError('bad\\nsizes')\n", r"ValueError: bad sizes \(line 2 of "),
        ("import no_such_module_here\n", r"ModuleNotFoundError: No module named 'no_such_module_here' \(line 1 of "),
        ("def create(:\n", r"SyntaxError: .* \(line 1 of "),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(line 2 of "),
    ],
)  # fmt: skip
def test_errors_are_one_line(text, message):
    write("net.py", text)
    with pytest.raises(UsageError, match=message) as error:
        resolve("./net.py:create", "--model")
    assert str(error.value).startswith("--model ./net.py:create") or "/net.py:create: importing it fails" in str(
        error.value
    )
    assert "\n" not in str(error.value)


def test_what_is_not_there_or_no_reference():
    for reference, message in (("./gone.py:create", "No such file"), ("gone_module:create", "no module gone_module"),
                               ("json.gone:create", "no module json.gone"), ("mlp", "expected FILE.py:NAME")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            resolve(reference, "--model")


def test_names_of_data_sets_are_no_files():
    assert is_reference("./net.py:create") and is_reference("package.module:create")
    assert not any(map(is_reference, ("mlp", "digits", "cifar10:0-4", "cifar10:cat,dog", "tfds:a/b", "./net.py")))
