import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vatt_demo.ground_truth import NOUNS, GroundTruth
from vatt_demo.player import ACTIONS
from vatt_demo.sentences import MAX_WORDS, PHRASES, WEAPON_NAMES, Writer, prompts

OBJECTS = [
    f"object:{noun}{side}"
    for noun in sorted(set(NOUNS.values()))
    for side in ("", "@left", "@right", "@ahead")
]
SCENE = ["light:dark", "colour:green", "space:narrow", "event:pain", "event:kill", "event:pickup"]


@st.composite
def truths(draw) -> GroundTruth:
    weapon = draw(st.sampled_from([*WEAPON_NAMES, ""]))
    facts = set(draw(st.lists(st.sampled_from(SCENE), unique=True)))
    facts |= {f"action:{one}" for one in draw(st.lists(st.sampled_from(ACTIONS[:6]), max_size=1))}
    facts |= {"action:attack"} if draw(st.booleans()) else set()
    facts |= {f"weapon:{weapon}"} if weapon else set()
    for fact in draw(st.lists(st.sampled_from(OBJECTS), max_size=3)):
        facts |= {fact, fact.split("@")[0]}
        if draw(st.booleans()):
            facts.add(f"count:{fact.split('@')[0][len('object:') :]}=2")
    return GroundTruth("", "", weapon, frozenset(facts))


@given(truths(), st.integers(0, 2**32))
def test_a_sentence_states_only_facts_and_lists_each_it_states(truth, seed):
    caption = Writer(np.random.default_rng(seed)).sentence(truth)
    if caption is None:
        return
    assert caption.said <= truth.facts
    assert len(caption.said) >= 2
    assert len(caption.text.split()) <= MAX_WORDS
    text = caption.text.replace(",", "")
    for noun in {
        fact[len("object:") :].split("@")[0] for fact in caption.said if "object:" in fact
    }:
        assert noun.replace("_", " ").rstrip("y") in text
    if "action:attack" not in truth.facts:
        assert not any(word in text for word in ("firing", "shooting", "opening fire"))
    for action in ACTIONS[:6]:
        named = any(phrase in text for phrase in PHRASES[action])
        assert named == (f"action:{action}" in caption.said)
    names = {word for weapon, all_names in WEAPON_NAMES.items() for word in all_names}
    assert any(name in text for name in names) == any("weapon:" in fact for fact in caption.said)


@given(truths(), st.integers(0, 2**32))
def test_a_remark_states_only_facts_and_no_action(truth, seed):
    remark = Writer(np.random.default_rng(seed)).remark(truth)
    assert remark is None or (remark.said <= truth.facts and "action:" not in str(remark.said))


def test_prompts_use_the_words_of_the_captions_for_each_action():
    sentences = prompts()["action"]
    assert list(sentences) == list(ACTIONS)
    for action, texts in sentences.items():
        assert len(set(texts)) == len(texts) >= 4
        assert all(any(phrase in text for phrase in PHRASES[action]) for text in texts)


@pytest.mark.parametrize("action", ACTIONS)
def test_phrases_of_different_actions_are_never_the_same(action):
    others = {phrase for one in ACTIONS if one != action for phrase in PHRASES[one]}
    assert not others & set(PHRASES[action])
