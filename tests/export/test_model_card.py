"""A model card says what results say, of every kind, and of which weights they are."""

import json
import shutil

from vatt.evaluation.results import file_hash
from vatt.export.model_card import model_card

RESULTS: dict[str, dict] = {
    "zero-shot": {"split": "test", "text_to_video": {"R@10": 52.8, "chance_R@10": 2, "n": 500}},
    "linear-eval-paper-hmdb51": {
        "video_label": {
            "mean": {"svm": {"top1": 0.5, "balanced": 0.4}},
            "splits": {"1": {"n_test": 30}, "2": {"n_test": 12}},
            "classes": 8,
        },
    },
    "evaluate": {
        "split": "val",
        "label": "action",
        "n_evaluated": 9,
        "classes": 4,
        "measures": {"top1": 0.75, "per_class": {"left": 0.5}},
        "model_hash": "another",
    },
}


def test_a_card_has_a_row_for_every_kind_of_measure(tiny, tmp_path):
    shutil.copytree(tiny.run / "model", tmp_path / "model")
    (tmp_path / "results").mkdir()
    own = {"format_version": "1.0", "model_hash": file_hash(tmp_path / "model/model.safetensors")}
    for name, result in RESULTS.items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(own | result))
    card = model_card(tmp_path / "model", tmp_path, name="owner/tiny")
    for row in (
        "| text_to_video R@10 | 52.8 | 2 | 500 |",
        "| video_label svm top1 | 0.5 | 0.125 | 42 |",
        "| video_label svm balanced | 0.4 | 0.125 | 42 |",
        "| action top1 | 0.75 | 0.25 | 9 |",
    ):
        assert row in card.splitlines()
    assert card.count("not these weights") == 1
    assert "R@k is" in card
    assert "mean_ap" not in card  # nothing of that kind was measured
