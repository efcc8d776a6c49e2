from typing import Any

import numpy as np
import pytest

from vatt_demo.game import HEIGHT, SAMPLES_PER_FRAME, WIDTH, GameFrame, Seen
from vatt_demo.ground_truth import main_colour, truth_of
from vatt_demo.player import UNITS_PER_FRAME, PlayedAction, buttons_of
from vatt_demo.weapons import WEAPONS

SPEED = 10.0
STEPS = {"forward": (1, 0), "backward": (-1, 0), "strafe_left": (0, 1), "strafe_right": (0, -1)}


def frame(**changes: Any) -> GameFrame:
    """Looking along x in a gray room with the pistol."""
    values: dict[str, Any] = {
        "pixels": np.full((HEIGHT, WIDTH, 3), 50, np.uint8),
        "waveform": np.zeros(SAMPLES_PER_FRAME, np.int16),
        "depth": np.full((HEIGHT, WIDTH), 30, np.uint8),
        "seen": (),
        "messages": (),
        "x": 0.0,
        "y": 0.0,
        "angle": 0.0,
        "slot": 2,
        "ammo": 50,
        "hits_taken": 0,
        "kills": 0,
    }
    return GameFrame(**(values | changes))


def played(action: str, frames: list[GameFrame], **changes: Any) -> PlayedAction:
    values: dict[str, Any] = {"weapon": WEAPONS[1], "first": 0}
    one = PlayedAction(action=action, **(values | changes))
    one.frames = frames
    turning = action.startswith("turn")
    one.buttons = [buttons_of(action, 1.0 if turning else SPEED, attack=False) for _ in frames]
    return one


def walk(action: str, pace: float = SPEED * UNITS_PER_FRAME, **changes: Any) -> list[GameFrame]:
    dx, dy = STEPS[action]
    return [frame(x=dx * pace * i, y=dy * pace * i, **changes) for i in range(20)]


@pytest.mark.parametrize("action", STEPS)
def test_a_walk_is_labelled_with_its_direction_whatever_the_heading(action):
    assert truth_of(played(action, walk(action)), []).action == action
    turned = [
        frame(x=-one.y, y=one.x, angle=90.0)  # the same walk, all turned by 90 degrees
        for one in walk(action)
    ]
    assert truth_of(played(action, turned), []).action == action


def test_a_walk_against_a_wall_or_to_another_side_has_no_action():
    assert truth_of(played("forward", walk("forward", pace=1.0)), []).action == ""
    assert truth_of(played("forward", walk("strafe_left")), []).action == ""


def test_a_turn_is_labelled_only_if_the_player_turns_that_way():
    left = [frame(angle=(350 + 4.0 * i) % 360) for i in range(20)]
    assert truth_of(played("turn_left", left), []).action == "turn_left"
    assert truth_of(played("turn_right", left), []).action == ""


def test_standing_is_unclear_when_blows_push_the_player():
    assert truth_of(played("stand", [frame()] * 20), []).action == "stand"
    assert truth_of(played("stand", walk("forward")), []).action == ""


def test_shots_name_the_weapon_and_pain_alone_is_pain():
    shots = [frame(ammo=50 - i // 5) for i in range(20)]
    pain = [frame(hits_taken=i // 10) for i in range(20)]
    both = [frame(ammo=50 - i // 5, hits_taken=i // 10) for i in range(20)]
    assert truth_of(played("attack", shots), []).sound_event == "pistol"
    assert truth_of(played("stand", pain), []).sound_event == "pain"
    assert truth_of(played("attack", both), []).sound_event == ""
    assert truth_of(played("stand", [frame()] * 20), []).sound_event == "none"


def test_shooting_while_walking_has_no_action_label_but_both_facts():
    shots = [frame(x=12.5 * i, ammo=50 - i // 5) for i in range(20)]
    truth = truth_of(played("forward", shots), [])
    assert truth.action == ""
    assert {"action:forward", "action:attack"} <= truth.facts


def test_silence_after_shots_is_unclear_while_they_still_ring():
    shots = played("attack", [frame(ammo=50 - i // 5) for i in range(20)])
    calm = played("stand", [frame()] * 20, first=20)
    assert truth_of(calm, [shots]).sound_event == ""


def test_an_unwanted_change_of_weapon_leaves_the_weapon_and_its_sound_unclear():
    changed = [frame(slot=2 if i < 10 else 3, ammo=50 - i // 5) for i in range(20)]
    truth = truth_of(played("attack", changed), [])
    assert (truth.weapon, truth.sound_event) == ("", "")
    assert not any(fact.startswith("weapon:") for fact in truth.facts)


@pytest.mark.parametrize(("takes", "weapon"), [(1, "shotgun"), (2, "super_shotgun")])
def test_shells_taken_tell_the_two_shotguns_apart(takes, weapon):
    shots = [frame(slot=3, ammo=50 - takes * (i // 5)) for i in range(20)]
    wanted = {one.name: one for one in WEAPONS}
    for name in ("shotgun", "super_shotgun"):
        truth = truth_of(played("attack", shots, weapon=wanted[name]), [])
        assert truth.weapon == (name if name == weapon else "")


def test_things_have_the_side_they_keep_to_and_a_number():
    left, right = Seen("DoomImp", 10, 40, 20, 40), Seen("DoomImp", 130, 40, 20, 40)
    tiny = Seen("Medikit", 80, 60, 3, 3)
    one = truth_of(played("stand", [frame(seen=(left, tiny))] * 20), []).facts
    assert {"object:serpent", "object:serpent@left"} <= one
    assert not any("right" in fact or "medkit" in fact or "count" in fact for fact in one)
    two = truth_of(played("stand", [frame(seen=(left, right))] * 20), []).facts
    assert {"object:serpent@left", "object:serpent@right", "count:serpent=2"} <= two


def test_a_thing_seen_for_a_moment_or_in_the_dark_is_no_fact():
    thing = Seen("DoomImp", 10, 40, 20, 40)
    passing = [frame(seen=(thing,) if 8 <= i < 12 else ()) for i in range(20)]
    assert "object:serpent" not in truth_of(played("stand", passing), []).facts
    dark = [frame(seen=(thing,), pixels=np.full((HEIGHT, WIDTH, 3), 9, np.uint8))] * 20
    facts = truth_of(played("stand", dark), []).facts
    assert "object:serpent" not in facts
    assert "light:dark" in facts


def test_room_is_measured_in_the_depth_buffer():
    def space(depth: int) -> set[str]:
        frames = [frame(depth=np.full((HEIGHT, WIDTH), depth, np.uint8))] * 20
        facts = truth_of(played("stand", frames), []).facts
        return {fact for fact in facts if fact.startswith("space:")}

    assert [space(depth) for depth in (10, 30, 90)] == [{"space:narrow"}, set(), {"space:open"}]


@pytest.mark.parametrize(
    ("mean", "word"),
    [
        ((60, 60, 60), "gray"),
        ((70, 52, 36), "brown"),
        ((120, 30, 30), "red"),
        ((40, 60, 30), "green"),
        ((30, 40, 80), "blue"),
    ],
)
def test_colours_have_the_name_people_give_them(mean, word):
    assert main_colour(np.array(mean, float)) == word
