"""Models on a hub: pushed, fetched, used without a network; no token is ever said."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch

import vatt
from tests.export.hub_server import Hub
from vatt import hub
from vatt.any_encoder import open_encoder
from vatt.cli.main import main
from vatt.errors import CheckpointError, ConfigError
from vatt.evaluation.trained_run import results_of

pytest.importorskip("huggingface_hub", reason='needs the extra "hub"')
TOKEN = "hf_secretsecretsecretsecretsecret"


@pytest.fixture
def server(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client's own way to upload
def test_a_model_travels_and_is_used_without_a_network(
    server, tiny, monkeypatch, tmp_path, caplog, capsys
):
    caplog.set_level(logging.DEBUG)
    assert main(["push", str(tiny.run), "--to", "hf://owner/tiny", "--json"]) == 0
    pushed = json.loads(capsys.readouterr().out)
    assert server.url in pushed["url"]
    files = server.files["owner/tiny"]["main"]
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    card = files["README.md"].decode()
    assert "# tiny" in card
    assert re.search(r"split `train` of `shards`: \d+ videos, .* captions\.", card)
    assert re.search(r"\| text_to_video R@10 \|", card) or "Nothing was measured" in card
    files |= {"weights.bin": b"no", "modeling.py": b"raise SystemExit"}
    fetched = vatt.load("hf://owner/tiny", "cpu")
    expected = vatt.load(tiny.run, "cpu").encode_text(["it moves left"]).vt
    assert torch.equal(fetched.encode_text(["it moves left"]).vt, expected)
    assert not [one for one in server.asked if "weights.bin" in one or "modeling.py" in one]
    assert any(TOKEN in one for one in server.tokens)  # it was used, and yet:
    assert TOKEN not in caplog.text + capsys.readouterr().err + files["README.md"].decode()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    assert main(["info", "hf://owner/tiny", "--json"]) == 0
    assert str(tmp_path / "cache") in json.loads(capsys.readouterr().out)["folder"]
    opened = open_encoder(Path("hf://owner/tiny"), None, "cpu")
    assert re.fullmatch("hf://owner/tiny@[0-9a-f]{40}", opened.name)
    again = open_encoder(Path(opened.name), None, "cpu")  # so an index finds its model
    assert (again.name, again.hash) == (opened.name, opened.hash)
    offline = vatt.load("hf://owner/tiny", "cpu")
    assert torch.equal(offline.encode_text(["it moves left"]).vt, expected)
    with pytest.raises(CheckpointError, match="the hub cannot be reached") as said:
        vatt.load("hf://owner/other")
    assert TOKEN not in str(said.value)


def test_what_a_hub_does_not_have_is_said(server):
    server.files["owner/there"] = {"main": {"config.json": b"{}"}}
    with pytest.raises(CheckpointError, match="no such model"):
        hub.fetch("hf://owner/absent")
    with pytest.raises(CheckpointError, match="not this revision"):
        hub.fetch("hf://owner/there@v2")
    for wrong in ("hf://owner", "hf://a/b/c", "hf://owner/name@"):
        with pytest.raises(ConfigError, match="expected hf://owner/name"):
            hub.fetch(wrong)


def test_results_are_not_written_beside_a_model_of_a_hub(capsys):
    assert main(["evaluate", "hf://owner/tiny"]) == 2
    assert "hf download" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="expected a folder for the results"):
        results_of(Path("hf://owner/tiny"), None, None)


def test_a_card_that_somebody_has_changed_stays(tiny, tmp_path, capsys):
    import shutil

    folder = shutil.copytree(tiny.run / "model", tmp_path / "model")
    push = ["push", str(folder), "--to", "hf://me/x", "--dry-run"]
    assert main(push) == 0
    card = folder / "README.md"
    assert "Nothing was measured" in card.read_text()
    card.write_text("mine")
    assert main(push) == 0
    assert card.read_text() == "mine"
    capsys.readouterr()
