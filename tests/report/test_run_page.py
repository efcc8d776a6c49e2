"""What the page of a run is drawn from: pairs in its spaces."""

import numpy as np

from vatt.report.figures import Points
from vatt.report.run_page import pair_similarities


def test_pairs_are_compared_in_the_width_of_the_wider_group():
    first = np.eye(3, 5, dtype=np.float32)
    found = pair_similarities(Points("x", {"video": first, "text": first[:, :3]}))
    np.testing.assert_allclose(found.positive, np.ones(3))
    np.testing.assert_allclose(found.negative, np.zeros(6))
