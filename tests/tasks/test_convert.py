import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

import vatt
from tests.convert.bundle_writer import write_bundle
from tests.parity.recordings import FOLDER
from vatt.cli.main import main
from vatt.convert.tensor_bundle import Bundle
from vatt.errors import ConfigError
from vatt.tasks.convert import ConvertConfig, head_widths, run

PREFIX = FOLDER / "tx_fac_spectrogram" / "ckpt-5"
HEADS = "video=16,audio=12"
STEM = "model/layer_with_weights-0/_base_layer/txt_backbone/embedding/embeddings"


def tensors_of(prefix) -> dict[str, np.ndarray]:
    """The variables of a genuine checkpoint that are floats."""
    bundle = Bundle(prefix)
    return {name: bundle.read(name) for name, e in bundle.entries.items() if e.dtype == 1}


def convert(prefix, *options) -> int:
    return main(["convert", str(prefix), "--head-width", HEADS, *map(str, options)])


def test_folder_loads_and_says_where_it_is_from(tmp_path):
    result = run(ConvertConfig(prefix=PREFIX, out=tmp_path / "a/b", head_width=HEADS))
    names = {path.name for path in (tmp_path / "a/b").iterdir()}
    assert names == {"README.md", "checksums.json", "config.json", "model.safetensors"}
    model = vatt.load(tmp_path / "a/b", "cpu")
    assert result.weights == sum(v.numel() for v in model.module.state_dict().values())
    assert result.backbones["text"]["head_width"] == 8  # read from the relative bias
    card = (tmp_path / "a/b/README.md").read_text()
    digest = hashlib.sha256(PREFIX.with_name("ckpt-5.index").read_bytes()).hexdigest()
    assert digest == result.index_sha256
    assert digest in card
    extra = json.loads((tmp_path / "a/b/config.json").read_text())["extra"]
    assert extra["source"]["index_sha256"] == digest
    assert all(f"`{name}`" in card for name in Bundle(PREFIX).entries)


def test_weights_file_is_plain_safetensors(tmp_path):
    run(ConvertConfig(prefix=PREFIX, out=tmp_path / "m", head_width=HEADS))
    with safe_open(tmp_path / "m/model.safetensors", "pt") as file:
        assert torch.equal(
            file.get_tensor("text_tokens.words.weight"),
            torch.from_numpy(Bundle(PREFIX).read(STEM).copy()),
        )


def test_dry_run_lists_every_variable_and_writes_nothing(tmp_path, capsys):
    assert convert(PREFIX, "--dry-run", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["variable"]: row for row in result["variables"]}
    assert rows.keys() == Bundle(PREFIX).entries.keys()
    assert rows[STEM]["status"] == "mapped"
    assert rows[STEM]["becomes"] == "text_tokens.words.weight"
    assert rows["optimizer/iter"]["status"] == "skipped"
    assert result["out"] is None
    assert not list(tmp_path.iterdir())


def test_printed_table_cuts_no_name_short(capsys):
    assert convert(PREFIX, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert printed.count("skipped") == 188  # slots, counters, object graph


def test_word_list_makes_a_tokenizer(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("<pad>\nslicing\n<unk>\nonions\n")
    config = ConvertConfig(prefix=PREFIX, out=tmp_path / "m", head_width=HEADS, vocabulary=words)
    assert run(config).vocabulary
    model = vatt.load(tmp_path / "m", "cpu")
    ids = torch.zeros(1, model.spec.words, dtype=torch.long)
    ids[0, :3] = torch.tensor([1, 2, 3])
    found, expected = model.encode_text("Slicing the onions!"), model.encode_text(ids)
    assert torch.equal(found.features, expected.features)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slicing\n<unk>\n", "found the first word 'slicing', expected '<pad>'"),
        ("<pad>\n<unk>\na\na\n", "found 'a' twice"),
        ("<pad>\n<unk>\n" + "\n".join(f"w{n}" for n in range(60)), "62 words, but the model's"),
    ],
)
def test_unfit_word_list_is_refused_and_leaves_nothing(tmp_path, capsys, text, says):
    words = tmp_path / "words.txt"
    words.write_text(text)
    assert convert(PREFIX, "--out", tmp_path / "m", "--vocabulary", words) == 1
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m").exists()


def test_damaged_data_leaves_nothing(tmp_path, capsys):
    write_bundle(tmp_path / "ckpt", tensors_of(PREFIX))
    data = tmp_path / "ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    entry = Bundle(tmp_path / "ckpt").entries[STEM]
    content[entry.offset + 5] ^= 1
    data.write_bytes(content)
    assert convert(tmp_path / "ckpt", "--out", tmp_path / "out/m") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert f"{STEM}: offset {entry.offset}: the checksum" in error
    assert not list((tmp_path / "out").iterdir())


def test_folder_that_exists_is_not_touched(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    assert convert(PREFIX, "--out", tmp_path) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("shards", [1, 4])
def test_several_shards_give_the_same_model(tmp_path, shards):
    write_bundle(tmp_path / "ckpt", tensors_of(PREFIX), shards=shards)
    assert convert(tmp_path / "ckpt", "--out", tmp_path / "m") == 0
    run(ConvertConfig(prefix=PREFIX, out=tmp_path / "straight", head_width=HEADS))
    name = "model.safetensors"
    assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.update({"model/more": np.zeros(3, np.float32)}), "unknown: model/more"),
        (lambda t: t.pop(f"{STEM}"), "is no model known here"),
        (
            lambda t: t.pop(
                "model/layer_with_weights-0/_head_layer/_bridge_heads/0/aud_to_va/bias"
            ),
            "1 variables are missing: model/layer_with_weights-0/_head_layer/_bridge_heads/0/aud",
        ),
        (lambda t: t.update({STEM: np.zeros((60, 13), np.float32)}), "which do not make"),
        (lambda t: t.update({STEM: np.zeros((0, 12), np.float32)}), "found shape [0, 12]"),
    ],
)
def test_variables_that_do_not_fit_are_named(tmp_path, capsys, change, says):
    tensors = tensors_of(PREFIX)
    change(tensors)
    write_bundle(tmp_path / "ckpt", tensors)
    assert convert(tmp_path / "ckpt", "--out", tmp_path / "m") == 1
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m").exists()


def test_head_width_that_does_not_divide_is_an_error(capsys):
    assert main(["convert", str(PREFIX), "--dry-run"]) == 1
    assert "no multiple of the head width 64" in " ".join(capsys.readouterr().err.split())


def test_head_widths():
    assert head_widths(None) == {}
    assert head_widths("32") == {"video": 32, "audio": 32}
    assert head_widths("video=12, audio=10,text=8") == {"video": 12, "audio": 10, "text": 8}
    for text in ("", "wide", "video=0", "image=3", "video=", "video=2,7"):
        with pytest.raises(ConfigError, match="head_width: found"):
            head_widths(text)


def test_out_is_needed_unless_dry():
    assert main(["convert", str(PREFIX)]) == 2


CLASSIFIER = FOLDER / "finetune_audio_spectrogram" / "ckpt-4"


def test_a_classifier_is_converted_with_its_velocities(tmp_path, capsys):
    options = ["--head-width", "12", "--out", str(tmp_path / "m"), "--optimizer", "--json"]
    assert main(["convert", str(CLASSIFIER), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["kind"], result["step"], result["problem"]) == (
        "spectrogram classifier",
        4,
        None,
    )
    assert result["backbones"].keys() == {"audio"}
    rows = {row["variable"]: row for row in result["variables"]}
    slot = "model/layer_with_weights-0/_ops/cls/kernel/.OPTIMIZER_SLOT/optimizer/momentum"
    assert rows[slot]["becomes"] == "linear.weight/momentum_buffer"
    assert rows["optimizer/iter"]["becomes"] == "state.json"
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names >= {"model.safetensors", "optimiser.safetensors", "state.json"}
    model = vatt.load_classifier(tmp_path / "m", "cpu")
    assert main(["info", str(tmp_path / "m"), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["parts"]["total"]["parameters"] == sum(p.numel() for p in model.module.parameters())
    assert info["vocabulary"] is None
    with pytest.raises(ConfigError, match=r"found shape \[1, 4, 16, 16, 3\], expected \[B, S\]"):
        model.classify(torch.zeros(1, 4, 16, 16, 3), sample_rate_hz=48_000)
    assert isinstance(vatt.load(tmp_path / "m", "cpu"), vatt.ClipClassifier)
    assert "vatt.load_classifier(" in (tmp_path / "m" / "README.md").read_text()


def test_a_vocabulary_is_no_use_for_a_classifier(tmp_path, capsys):
    (tmp_path / "words").write_text("<pad>\n<unk>\n")
    options = ["--head-width", "12", "--dry-run", "--vocabulary", str(tmp_path / "words")]
    assert main(["convert", str(CLASSIFIER), *options]) == 1
    assert "no use for a spectrogram classifier" in " ".join(capsys.readouterr().err.split())


def test_slots_that_are_missing_are_named(tmp_path, capsys):
    assert main(["convert", str(PREFIX.with_name("ckpt-0")), "--head-width", HEADS, "--dry-run",
                 "--optimizer"]) == 1  # fmt: skip
    assert "has no optimiser slots" in " ".join(capsys.readouterr().err.split())
    tensors = tensors_of(PREFIX) | {"optimizer/iter": np.array(5, np.int64)}
    bias = "model/layer_with_weights-0/_head_layer/_bridge_heads/0/aud_to_va/bias"
    del tensors[f"{bias}/.OPTIMIZER_SLOT/optimizer/v"]
    write_bundle(tmp_path / "ckpt", tensors)
    assert convert(tmp_path / "ckpt", "--out", tmp_path / "m", "--optimizer") == 1
    error = "".join(capsys.readouterr().err.split())
    assert f"{bias}/.OPTIMIZER_SLOT/optimizer/v:foundnothing" in error
    assert not (tmp_path / "m").exists()


def test_dry_run_shows_the_whole_table_even_when_variables_have_no_place(tmp_path, capsys):
    tensors = tensors_of(PREFIX) | {"model/more": np.zeros(3, np.float32)}
    bias = "model/layer_with_weights-0/_head_layer/_bridge_heads/0/aud_to_va/bias"
    del tensors[bias]
    write_bundle(tmp_path / "ckpt", tensors)
    assert convert(tmp_path / "ckpt", "--dry-run", "--json") == 1
    printed = capsys.readouterr()
    rows = {row["variable"]: row["status"] for row in json.loads(printed.out)["variables"]}
    assert (rows["model/more"], rows[bias], rows[STEM]) == ("unknown", "missing", "mapped")
    error = "".join(printed.err.split())
    assert f"1variablesaremissing:{bias};1variablesareunknown:model/more" in error


def test_more_layers_than_any_model_has_are_refused_at_once(tmp_path, capsys):
    layer = "model/layer_with_weights-0/_base_layer/vid_backbone/_base/tx/layers"
    names = {f"{layer}/{n}/layer_norm/beta": np.zeros(1, np.float32) for n in range(1001)}
    write_bundle(tmp_path / "ckpt", tensors_of(PREFIX) | names)
    assert convert(tmp_path / "ckpt", "--dry-run") == 1
    assert "1001 layers, expected at most 1000" in " ".join(capsys.readouterr().err.split())
