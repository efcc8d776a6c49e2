"""What the page of a run is drawn from: pairs in its spaces, results of classifiers."""

import numpy as np

from vatt.report.figures import Points
from vatt.report.result_tables import finetuned_table, paper_comparison
from vatt.report.run_page import _evaluation_curves, pair_similarities


def test_pairs_are_compared_in_the_width_of_the_wider_group():
    first = np.eye(3, 5, dtype=np.float32)
    found = pair_similarities(Points("x", {"video": first, "text": first[:, :3]}))
    np.testing.assert_allclose(found.positive, np.ones(3))
    np.testing.assert_allclose(found.negative, np.zeros(6))


def test_classifiers_are_shown_by_the_mean_over_classes_with_what_was_not_evaluated():
    of_one = {
        "label": "action", "classes": 4, "n_evaluated": 7, "n_expected": 9,
        "measures": {"top1": 0.75, "per_class": {"left": 1.0, "right": 0.5, "up": 0.0}},
    }  # fmt: skip
    of_several = {
        "label": "tag", "classes": 4, "n_evaluated": 9, "n_expected": 9,
        "measures": {"mean_ap": 0.25, "without_auc": ["up"]},
    }  # fmt: skip
    table = finetuned_table([of_one, of_several])
    assert table is not None
    assert table.groups == [
        [
            ("action (7 of 9 clips): mean over classes", ["0.500"]),
            ("top1", ["0.750"]),
            ("chance, 4 classes", ["0.250"]),
        ],
        [("tag (9 clips): mean_ap", ["0.250"])],
    ]
    assert finetuned_table([]) is None


def test_a_table_of_the_paper_is_shown_below_what_was_measured_and_says_of_how_many_files():
    found = paper_comparison({
        "table": "table7", "title": "Retrieval", "differs": ["model: tiny"],
        "rows": {"VATT-MBS": {"R@10": 45.5, "MedR": 13}, "ours": {"R@10": None, "MedR": 9.5}},
        "data": [
            {"dataset": "msrvtt", "state": "done", "units": "captions", "n_evaluated": 879,
             "n_expected": 1000, "differs": ["files: 879"]},
            {"dataset": "youcook2", "state": "not there: no folder", "units": "captions",
             "n_evaluated": 0, "n_expected": 0, "differs": []},
        ],
    })  # fmt: skip
    assert found is not None
    assert found.title == "Table 7: Retrieval"
    assert found.table.groups == [[("ours", ["–", "9.5"]), ("VATT-MBS", ["45.5", "13"])]]
    assert found.counts == {
        "msrvtt": "879 of 1,000 captions", "youcook2": "not there: no folder",
    }  # fmt: skip
    assert found.differs == ["model: tiny", "files: 879"]
    assert paper_comparison(None) is None


def test_measures_of_evaluations_during_the_training_become_curves():
    log = [{"step": 1.0, "loss": 3.0}]
    log += [{"step": s, "loss": 2.0, "eval_text_to_video_R@10": 10.0 * s} for s in (2.0, 4.0)]
    (curve,) = _evaluation_curves(log)
    assert curve.steps == [2.0, 4.0]
    assert curve.lines == {"text → video": [20.0, 40.0]}
    assert list(_evaluation_curves(log[:2])) == []
