"""Figures are well-formed, repeatable, and show what they are given."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vatt.report.figures import (
    MOST_CLASSES,
    ClassPoints,
    Curve,
    Points,
    Similarities,
    class_maps,
    confusion,
    curves,
    densities,
    maps,
)

RNG = np.random.default_rng(0)
CURVE = Curve("loss", [0, 10, 20], {"whole": [5.0, 4.0, 3.0], "video-audio": [3.0, 2.0, 1.0]})


def apart(num: int) -> Points:
    """Two groups that a map must keep apart."""
    centre = np.zeros(16, np.float32)
    centre[0] = 30.0
    groups = [RNG.normal(size=(num, 16)).astype(np.float32) + side for side in (centre, -centre)]
    return Points("output space", {"video": groups[0], "text": groups[1]})


POINTS = apart(30)
SIMILARITIES = Similarities(
    "output", RNG.normal(0.5, 0.1, 80).astype(np.float32), RNG.normal(0, 0.1, 80).astype(np.float32)
)
NAMES = ["$x_$", "_first", "日本 🚲", "a very long name of a class that no legend has room for"]
BY_CLASS = ClassPoints("from demo", np.concatenate(list(POINTS.groups.values())), np.arange(60) % 4)
DRAWINGS = {
    "curves": lambda: curves([CURVE]),
    "maps": lambda: maps([POINTS], seed=0),
    "class_maps": lambda: class_maps([BY_CLASS, BY_CLASS], NAMES, seed=0),
    "densities": lambda: densities([SIMILARITIES]),
    "confusion": lambda: confusion(np.array([[3, 1], [0, 2]]), ["left", "right"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_well_formed_and_take_the_colour_of_the_page(name):
    text = DRAWINGS[name]()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "currentColor" in text
    assert "#010203" not in text


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_numbers_give_the_same_bytes(name):
    assert DRAWINGS[name]() == DRAWINGS[name]()


def test_groups_that_lie_apart_are_drawn_apart():
    text = maps([apart(30)], seed=0)
    spots = {
        colour: np.array(re.findall(rf'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*{colour}', text))
        for colour in ("#3f7fbf", "#d9803a")
    }
    video, words = (part.astype(float)[:30] for part in spots.values())
    spread = max(video.std(axis=0).max(), words.std(axis=0).max())
    assert np.linalg.norm(video.mean(axis=0) - words.mean(axis=0)) > 2 * spread


def test_titles_and_names_are_text_in_the_page():
    text = curves([CURVE])
    for word in ("loss", "whole", "video-audio", "step"):
        assert f">{word}<" in text


def test_equal_similarities_are_drawn_without_error():
    same = np.ones(5, np.float32)
    assert "same clip" in densities([Similarities("input", same, same)])


def test_very_few_clips_can_be_mapped():
    assert "video" in maps([apart(3)], seed=0)


def test_names_of_classes_are_drawn_as_they_are_and_those_of_too_many_are_counted():
    text = DRAWINGS["class_maps"]()
    for words in ("$x_$", "_first", "日本 🚲", "a very long name of a class…"):
        assert words in text
    assert "日本 🚲" in confusion(np.eye(4, dtype=int), NAMES)
    many = ClassPoints("", RNG.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 30)
    text = class_maps([many], [f"class {n}" for n in range(30)], seed=0)
    assert f"{30 - MOST_CLASSES} other classes" in text
