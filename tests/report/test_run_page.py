"""What the page of a run is drawn from: pairs in its spaces, results of classifiers."""

import numpy as np

from vatt.report.figures import Points
from vatt.report.result_tables import finetuned_table
from vatt.report.run_page import pair_similarities


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
