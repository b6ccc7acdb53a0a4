"""A merged folder appears whole or not at all, whatever stops the program; overwriting leaves nothing of the older model."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tna_jax.programs.merge.folders import BASE, HEAD, folder
from tna_jax.io import tensor_headers
from tna_jax.programs.cli.main import main
from tna_jax.programs.merge import folder_output, streaming


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("abcd"):
        folder(tmp_path / name, i, shards=1 if name in "ab" else 2)


def listed(path: str = "out") -> list[str]:
    return sorted(str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file())


def hidden() -> list[str]:
    return [name for name in os.listdir() if name.startswith(".")]


def test_overwriting_leaves_one_layout_and_what_the_user_put_there(tmp_path, capsys):
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    (tmp_path / "out" / "notes.md").write_text("mine")
    (tmp_path / "out" / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    (tmp_path / "out" / "rust_model.ot").write_bytes(b"old")
    (tmp_path / "out" / "plots").mkdir()
    (tmp_path / "out" / "plots" / "one.png").write_bytes(b"mine")
    assert main(["merge", "c", "d", "-o", "out", "--overwrite"]) == 0
    assert listed() == [
        "README.md", "config.json", "merge.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        tensor_headers.INDEX, "notes.md", "plots/one.png", "vocab.txt",
    ]  # fmt: skip
    assert main(["merge", "a", "b", "-o", "out", "--overwrite"]) == 0
    assert "model-00001-of-00002.safetensors" not in listed() and tensor_headers.SINGLE in listed()
    assert not hidden()


def test_a_card_of_the_users_own_stays(tmp_path):
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    assert "# A merge of a and b" in Path("out/README.md").read_text()
    folder(tmp_path / "model", 9)
    (tmp_path / "model" / "README.md").write_text("mine")
    assert main(["merge", "a", "b", "-o", "model", "--overwrite"]) == 0
    assert Path("model/README.md").read_text() == "mine"


def test_a_folder_without_a_model_is_not_replaced(tmp_path, capsys):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years")
    assert main(["merge", "a", "b", "-o", "papers", "--overwrite"]) == 2
    assert "papers is a folder that holds no model (thesis.tex)" in capsys.readouterr().err
    assert listed("papers") == ["thesis.tex"]
    assert main(["merge", "a", "b", "-o", ".", "--overwrite"]) == 2
    assert "is the folder that you are in" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("old", [False, True])
def test_what_stops_in_the_middle_leaves_the_old_merge_or_nothing(monkeypatch, capsys, error, old):
    if old:
        assert main(["merge", "a", "b", "-o", "out"]) == 0
    before = {name: Path("out", name).read_bytes() for name in (listed() if old else [])}
    original, calls = streaming.write, []

    def stop(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        original(*arguments, **options)

    monkeypatch.setattr(streaming, "write", stop)
    assert main(["merge", "c", "d", "-o", "out", "--overwrite"]) == (130 if error is KeyboardInterrupt else 2)
    told = " ".join(capsys.readouterr().err.split())
    assert len(calls) == 2 and ("No space left" in told or "stopped; out:" in told)
    assert ("what it held before is there" in told) == (old and error is KeyboardInterrupt)
    assert {name: Path("out", name).read_bytes() for name in (listed() if old else [])} == before
    assert Path("out").exists() == old and not hidden()


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_a_killed_merge_left_is_swept_and_named(tmp_path, capsys):
    host = folder_output._host()
    stale = [f".out.{host}.{dead_process()}.merging", f".out.{host}.{dead_process()}.replaced"]
    alive, elsewhere, other = (
        f".out.{host}.{os.getppid()}.merging",
        ".out.another-host.1.merging",
        f".x.{host}.1.merging",
    )
    for name in [*stale, alive, elsewhere, other]:
        Path(name).mkdir()
        Path(name, "model.safetensors").write_bytes(b"half")
    Path(stale[1], "config.json").write_text("{}")
    assert (
        main(["merge", "a", "b", "-o", "out", "--overwrite"]) == 0
    )  # out is missing: the replaced one comes back first
    told = "".join(capsys.readouterr().err.split())
    assert "theoldoneisback" in told and stale[0] in told
    assert sorted(hidden()) == sorted([alive, elsewhere, other])
    assert load_file("out/model.safetensors")[BASE].shape == (8, 8)
    assert host == folder_output.re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]


KILLED = """
import sys
from tna_jax.programs.merge import streaming
original = streaming.write
def slow(*arguments, **options):
    original(*arguments, **options)
    print("shard", flush=True)
    sys.stdin.readline()
streaming.write = slow
from tna_jax.programs.cli.main import main
sys.exit(main(["merge", "c", "d", "-o", "out", "--overwrite"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_merge_that_is_killed_between_two_files_leaves_the_old_one(number):
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    before = listed()
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "shard"
    process.send_signal(number)
    time.sleep(0.1)
    process.communicate("\n", timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert listed() == before and len(hidden()) == (number == signal.SIGKILL)
    assert main(["merge", "c", "d", "-o", "out", "--overwrite"]) == 0
    assert not hidden() and "model-00002-of-00002.safetensors" in listed()


def test_weights_of_other_formats_are_not_copied_and_inner_folders_are(tmp_path):
    inner = tmp_path / "a" / "1_Pooling"
    inner.mkdir()
    (inner / "config.json").write_text("{}")
    (tmp_path / "a" / "checkpoint-10").mkdir()
    (tmp_path / "a" / "checkpoint-10" / "config.json").write_text("{}")
    others = [
        "rust_model.ot", "model.gguf", "model.ckpt", "flax_model.msgpack", "tf_model.h5", "model.tflite", "x.npz", "pytorch_model.bin",
        "pytorch_model.bin.index.json", "openvino_model.xml", "openvino_model.bin", "model.onnx", "model.PT", "trainer_state.json",
    ]  # fmt: skip
    for name in others:
        (tmp_path / "a" / name).write_bytes(b"of the first model")
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    assert listed() == [
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        "merge.json",
        "model.safetensors",
        "vocab.txt",
    ]


def test_a_folder_of_another_librarys_names_keeps_them(tmp_path):
    for i, name in enumerate(("unet1", "unet2")):
        (tmp_path / name).mkdir()
        save_file({"w": np.full(2, i, np.float32)}, tmp_path / name / "diffusion_pytorch_model.safetensors")
        (tmp_path / name / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    assert main(["merge", "unet1", "unet2", "-o", "out"]) == 0
    assert load_file("out/diffusion_pytorch_model.safetensors")["w"].tolist() == [0.5, 0.5]


def test_a_folder_of_the_hubs_cache_is_its_main_snapshot(tmp_path, capsys):
    root = tmp_path / "models--org--name"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    for revision, model in (("abc", "a"), ("old", "c")):
        snapshot = root / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for file in (tmp_path / model).iterdir():
            blob = root / "blobs" / f"{revision}{file.name}"
            blob.write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(blob)
    assert main(["merge", "models--org--name", "b", "-o", "out"]) == 0
    assert main(["merge", "a", "b", "-o", "same"]) == 0
    one, two = (load_file(f"{name}/model.safetensors") for name in ("out", "same"))
    assert all(one[key].tobytes() == two[key].tobytes() for key in (BASE, HEAD))
    assert not Path("out/config.json").is_symlink()
    (root / "refs" / "main").unlink()
    assert main(["merge", "models--org--name", "b", "-o", "more"]) == 2
    assert "name one of its snapshots" in capsys.readouterr().err


def test_the_report_names_the_files_and_the_hashes_of_the_inputs():
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    report = json.loads(Path("out/merge.json").read_text())
    assert sorted([*report["files"], "merge.json"]) == listed()
    import hashlib

    for file, digest in report["inputs"].items():
        assert digest == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert len(report["inputs"]) == 2
