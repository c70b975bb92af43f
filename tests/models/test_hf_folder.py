"""Folders that anybody may have made: what isn't a safe Hugging Face model is refused in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmexp import hub
from lmexp.errors import ConfigError, DataError, UserError
from lmexp.models import hf_folder
from lmexp.models.config import HFConfig
from tests.hugging_face import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path / "model"


def opened(folder: Path) -> None:
    """All that is done with a folder."""
    model = HFConfig(path=str(folder)).build(vocab_size=257, sequence_length=8)
    assert len(hf_folder.digest(folder)) == 64
    model.load_base(hf_folder.read_weights(folder), str(folder))  # type: ignore[operator]


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        opened(folder)
    return str(caught.value)


def changed(folder: Path, **settings: object) -> Path:
    """The folder with other settings in its config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def test_code_is_never_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for key in ("AutoModelForCausalLM", "AutoConfig"):
        told = refused(changed(folder, auto_map={key: "evil.Model"}))
        assert "auto_map asks for code that comes with the model, and lmexp never runs that" in told
    told = refused(changed(folder, auto_map=None, model_type="evil"))
    assert "model_type is 'evil'" in told
    assert "code that comes with a model is never run" in told
    assert not (tmp_path / "ran").exists()


def test_settings_that_choose_what_computes_are_left_out(folder: Path) -> None:
    changed(folder, _attn_implementation="some/kernel", attn_implementation="some/kernel", fusion_config={"a": 1})
    changed(folder, to_dict=5, from_pretrained=7, _name_or_path="elsewhere", torch_dtype="bfloat16")
    opened(folder)
    assert "quantized" in refused(changed(folder, quantization_config={"quant_method": "bitsandbytes"}))


def test_a_pickle_is_never_opened(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    told = refused(folder)
    assert "its weights are in pytorch_model.bin, a pickle, which may run code" in told
    assert "save_pretrained(NEW_FOLDER)" in told
    (folder / "pytorch_model.bin").unlink()
    assert "holds no model.safetensors" in refused(folder)


def test_files_that_arent_what_they_say(folder: Path, tmp_path: Path) -> None:
    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def elsewhere(path: Path) -> None:
        path.unlink()
        path.symlink_to("/etc/passwd")

    def deep(path: Path) -> None:
        path.write_text('{"a": ' * 2000 + "1" + "}" * 2000)

    def huge(path: Path) -> None:
        with open(path, "wb") as file:
            file.truncate(1 << 27)

    cases: list[tuple[str, Callable[[Path], None], str]] = [
        ("config.json", pipe, "it is a pipe"),
        ("config.json", elsewhere, "not JSON"),
        ("config.json", deep, "not JSON"),
        ("config.json", huge, "bytes; expected"),
        ("model.safetensors", pipe, "it is a pipe"),
        ("model.safetensors", elsewhere, "not a safetensors file"),
        ("model.safetensors", huge, "not a safetensors file"),
    ]
    for number, (name, spoil, message) in enumerate(cases):
        copy = tmp_path / str(number)
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        spoil(copy / name)
        assert message in refused(copy), (name, message)


def test_weights_in_several_files(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[:5], "model-2-of-2.safetensors": names[5:]}
    for part, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / part)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: part for part, held in parts.items() for name in held}}))
    opened(folder)
    before = hf_folder.digest(folder)
    save_file({name: weights[name] + 1 for name in names[5:]}, folder / "model-2-of-2.safetensors")
    assert hf_folder.digest(folder) != before
    (folder / "model-2-of-2.safetensors").unlink()
    assert "names model-2-of-2.safetensors, which isn't there" in refused(folder)
    for bad in ({"a": "../model/model-1-of-2.safetensors"}, {"a": "/etc/passwd"}, {"a": 5}, [1], {}):
        index.write_text(json.dumps({"weight_map": bad}))
        assert "expected a weight_map" in refused(folder)


def test_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    assert "it holds an adapter" in refused(tmp_path / "adapter")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert f"lmexp export run={tmp_path / 'run'}" in refused(tmp_path / "run")
    assert "holds no config.json" in refused(tmp_path)
    assert "did you mean adapter?" in refused(tmp_path / "adaptor")


def test_the_hub_is_read_at_a_commit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(given: str, revision: str | None) -> Path:
        return hub.folder_of("model.path", given, revision, ["config.json"], ConfigError)

    monkeypatch.chdir(tmp_path)
    for revision in (None, "main", "a" * 39, "A" * 40):
        with pytest.raises(ConfigError, match=r"model\.revision is .*expected the 40 hex digits of a commit"):
            find("org/name", revision)
    with pytest.raises(ConfigError, match="there is no such folder"):
        find("../org/name", "a" * 40)
    (tmp_path / "here").mkdir()
    with pytest.raises(ConfigError, match=r"so it has no model\.revision"):
        find("here", "a" * 40)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        hub.folder_of("tokenizer.path", "file", None, [], DataError)


def test_a_commit_that_was_fetched_before_is_read_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The hub's cache, laid out as huggingface_hub does: files are links to blobs."""
    constants = pytest.importorskip("huggingface_hub.constants")
    commit, cache = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub"
    repository = cache / "models--org--name"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in folder.iterdir():
        path.rename(repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    config = HFConfig(path="org/name", revision=commit)
    assert hf_folder.find(config) == snapshot
    opened(snapshot)
    with pytest.raises(ConfigError, match=r"the hub gives no commit f{40}: .*HF_HUB_OFFLINE=1"):
        hf_folder.find(HFConfig(path="org/name", revision="f" * 40))
