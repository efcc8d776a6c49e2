"""Which model is kept as the best: what is measured of a set of clips is given here."""

import json
from typing import Any

import pytest

from tests.models.small import SMALL_MODEL
from vatt.contracts import ClipSpec
from vatt.data.data_config import DataConfig
from vatt.evaluation.in_training import periodic
from vatt.evaluation.in_training.periodic import EvaluationConfig, PeriodicEvaluation, best_kept
from vatt.models.weights import save_settings


@pytest.fixture
def evaluated(monkeypatch):
    """Gives the best, after steps 1, 2 … with these measures, and which models were kept."""

    def run(
        *measured: dict[str, float], best: Any = None, **settings: Any
    ) -> tuple[Any, list[int]]:
        rest, kept = list(measured), list[int]()
        stand_in: Any = object()
        monkeypatch.setattr(
            periodic, "clip_sets", lambda *_: [periodic.ClipSet("", stand_in, stand_in)]
        )
        monkeypatch.setattr(PeriodicEvaluation, "_measured", lambda *_: rest.pop(0))
        evaluation = PeriodicEvaluation(
            EvaluationConfig(**settings),
            DataConfig(),
            ClipSpec(),
            weights=dict,
            encoder_of=lambda _: stand_in,
            best=json.loads(json.dumps(best or {})),  # as in a checkpoint
            keep=lambda about, _: kept.append(about["step"]),
        )
        for step in range(len(measured)):
            evaluation(step + 1)
        return evaluation.best, kept

    return run


def test_the_best_is_kept_also_when_a_run_goes_on(evaluated):
    values = [{"text_to_video_R@10": value} for value in (10.0, 30.0, 20.0)]
    best, kept = evaluated(*values)
    assert (best["step"], kept) == (2, [1, 2])
    assert evaluated(values[2], best=best) == (best, [])
    fewer = evaluated(
        {"text_to_video_MedR": 4.0}, {"text_to_video_MedR": 7.0}, measure="text_to_video_MedR"
    )
    assert fewer[1] == [1]  # of ranks the lowest


@pytest.mark.parametrize(
    "other", [{"measure": "audio_to_video_MedR"}, {"clips": 500}, {"split": "test"}], ids=str
)
def test_values_of_another_evaluation_are_not_compared(evaluated, caplog, other):
    before, _ = evaluated({"text_to_video_R@10": 90.0})
    values = {"text_to_video_R@10": 20.0, "audio_to_video_MedR": 95.0}
    best, kept = evaluated(values, best=before, **other)
    assert kept == [1]
    assert best["measure"] == other.get("measure", "text_to_video_R@10")
    assert "looked for anew" in caplog.text


BEST = {"measure": "text_to_video_R@10", "value": 20.0, "step": 4, "judged_on": {"seed": 7}}


@pytest.mark.parametrize(
    ("kept", "best", "expected"),
    [
        (BEST, BEST, BEST),
        (BEST | {"step": 6, "value": 25.0}, BEST, BEST),  # killed before the next checkpoint
        (BEST | {"step": 2, "value": 15.0}, BEST, BEST | {"step": 2, "value": 15.0}),  # keep = last
        (BEST | {"judged_on": {}}, BEST, BEST | {"judged_on": {}}),
        ({"step": 12}, BEST, {}),  # the last model of a run that kept that
        (None, BEST, {}),
        (BEST, {}, {}),
    ],
)
def test_the_best_is_that_of_the_model_which_was_kept(tmp_path, kept, best, expected):
    if kept is not None:
        save_settings(tmp_path, SMALL_MODEL, ClipSpec(), {"weights": "trained", **kept})
    assert best_kept(tmp_path, best) == expected
