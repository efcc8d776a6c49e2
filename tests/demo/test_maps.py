import importlib
import sys

import pytest

from tests.demo.needs_game import needs_game
from vatt.errors import MissingExtraError
from vatt_demo.maps import SPLITS, all_maps, engine_folder, maps_of, places


@needs_game
def test_each_map_is_in_one_split():
    split_maps = [maps_of(split) for split in SPLITS]
    assert [len(maps) for maps in split_maps] == [45, 6, 17]
    assert sorted(m.label for maps in split_maps for m in maps) == sorted(
        m.label for m in all_maps()
    )


@needs_game
def test_test_maps_are_of_both_wads_and_none_that_an_earlier_trial_was_tuned_on():
    assert not set(maps_of("test")) & set(all_maps()[3::4])
    assert {one.wad for split in SPLITS for one in maps_of(split)} == {
        "freedoom1.wad",
        "freedoom2.wad",
    }


@needs_game
def test_every_map_has_places_to_record_from():
    assert min(len(places(one)) for one in all_maps()) >= 20


def test_missing_game_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "vizdoom", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(MissingExtraError, match=r"vizdoom.*vatt\[demo\]"):
        engine_folder()
