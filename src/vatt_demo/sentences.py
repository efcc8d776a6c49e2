"""Sentences a person might say about a played action, made from its facts.

A small vocabulary in varied short sentences of at most 16 words. `said` lists exactly the facts
that a sentence states.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from vatt_demo.ground_truth import MONSTER_NOUNS, PLURAL, GroundTruth

MAX_WORDS = 16

PHRASES: dict[str, tuple[str, ...]] = {
    "forward": ("walking forward", "moving forward", "going straight ahead", "walking ahead"),
    "backward": ("walking backward", "backing up", "moving back", "stepping backward"),
    "strafe_left": (
        "strafing left",
        "sidestepping left",
        "sliding to the left",
        "strafing to the left",
    ),
    "strafe_right": (
        "strafing right",
        "sidestepping right",
        "sliding to the right",
        "strafing to the right",
    ),
    "turn_left": ("turning left", "turning to the left", "looking around left", "spinning left"),
    "turn_right": (
        "turning right",
        "turning to the right",
        "looking around right",
        "spinning right",
    ),
    "attack": ("firing", "shooting", "attacking", "opening fire"),
    "stand": ("standing still", "waiting", "not moving", "standing around"),
}
WEAPON_NAMES = {
    "chainsaw": ("chainsaw", "saw"),
    "pistol": ("pistol",),
    "shotgun": ("shotgun",),
    "super_shotgun": ("double shotgun", "double barrel"),
    "chaingun": ("minigun", "machine gun"),
    "rocket_launcher": ("rocket launcher",),
    "plasma_rifle": ("plasma gun", "plasma rifle"),
    "bfg": ("big green gun", "bfg"),
}
HOLDING = ("with the {w}", "holding the {w}", "carrying the {w}", "with the {w} ready")
HOLDING_ONLY = ("holding the {w}", "carrying the {w}")
FIRING = (
    "firing the {w}",
    "shooting the {w}",
    "attacking with the {w}",
    "opening fire with the {w}",
)
SAWING = ("using the {w}", "cutting with the {w}", "attacking with the {w}")
SIDES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "to the left"),
    "right": ("on the right", "to the right"),
    "ahead": ("ahead", "in front", "in the middle"),
}
EVENTS = {
    "event:pain": ("ouch", "getting hurt", "taking damage", "being hit"),
    "event:kill": ("it is dead", "killing one", "one down"),
    "event:pickup": ("picking something up", "grabbing something"),
}
CHATTER = (
    "here we go",
    "let us see",
    "all right",
    "okay, next one",
    "what a strange place",
    "this is going well",
    "where are we now",
    "I have been here before",
    "be careful here",
    "keep going",
)
PLACES = {
    "space:narrow": ("corridor", "small room", "narrow place"),
    "space:open": ("hall", "open area", "large room"),
    "": ("room", "place", "area"),
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, or a part of one, and the facts it states."""

    text: str
    said: frozenset[str]


class Writer:
    """Writes the sentences of one video."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng

    def _one_of(self, options: tuple[str, ...]) -> str:
        return options[int(self._rng.integers(len(options)))]

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def chatter(self) -> str:
        """A remark that says nothing about what is seen or done."""
        return self._one_of(CHATTER)

    def sentence(self, truth: GroundTruth) -> Sentence | None:
        """The sentence for an action, or None when there is nothing clear to say."""
        head = self._action(truth)
        place = self._place(truth) if self._chance(0.6) else None
        things = self._things(truth) if self._chance(0.85) else []
        start = [part for part in (head, place) if part]
        if not start:
            return None
        opener = self._one_of(("", "", "", "I am ", "we are ", "now ")) if head else "we are "
        text = opener + " ".join(part.text for part in start)
        said = frozenset(fact for part in start for fact in part.said)
        joints = (self._one_of((" near", " and I see", ",")), self._one_of((",", " and")))
        events = [
            Sentence(self._one_of(options), frozenset([fact]))
            for fact, options in EVENTS.items()
            if fact in truth.facts and self._chance(0.7)
        ]
        rest = [*zip(joints, things, strict=False), *((",", event) for event in events)]
        for joint, part in rest:
            longer = f"{text}{joint} {part.text}"
            if len(longer.split()) <= MAX_WORDS:
                text, said = longer, said | part.said
        return Sentence(text, said) if len(said) > 1 else None

    def remark(self, truth: GroundTruth) -> Sentence | None:
        """A second, shorter sentence about the scene alone."""
        things = self._things(truth)
        if things:
            verb = "are" if things[0].text.split()[0] in ("two", "several", "some") else "is"
            return Sentence(f"there {verb} {things[0].text}", things[0].said)
        place = self._place(truth)
        return Sentence(f"we are {place.text}", place.said) if place else None

    def _action(self, truth: GroundTruth) -> Sentence | None:
        """What the player does and with which weapon, e.g. "backing up, firing the pistol"."""
        actions = {fact.split(":")[1] for fact in truth.facts if fact.startswith("action:")}
        shoots = "attack" in actions
        move = next(iter(actions - {"attack"}), "")
        names_weapon = bool(truth.weapon) and self._chance(0.97 if shoots else 0.72)
        said = {f"action:{action}" for action in actions}
        text = self._one_of(PHRASES[move]) if move else ""
        if shoots:
            text += ", " if text else ""
            named = SAWING if truth.weapon == "chainsaw" else FIRING
            text += self._one_of(named if names_weapon else PHRASES["attack"])
        elif names_weapon:
            text += " " + self._one_of(HOLDING if move else HOLDING_ONLY)
        if names_weapon:
            text = text.format(w=self._one_of(WEAPON_NAMES[truth.weapon]))
            said.add(f"weapon:{truth.weapon}")
        return Sentence(text.strip(), frozenset(said)) if said else None

    def _place(self, truth: GroundTruth) -> Sentence | None:
        """Light, colour and width, e.g. "in a dark green hall"."""
        said: list[str] = []
        for kind, probability in (("light:", 0.7), ("colour:", 0.7), ("space:", 0.7)):
            fact = next((one for one in sorted(truth.facts) if one.startswith(kind)), "")
            if fact and self._chance(probability):
                said.append(fact)
        if not said:
            return None
        space = said[-1] if said[-1].startswith("space:") else ""
        words = [fact.split(":")[1] for fact in said if fact != space]
        phrase = " ".join((*words, self._one_of(PLACES[space])))
        return Sentence(f"in {article(phrase)} {phrase}", frozenset(said))

    def _things(self, truth: GroundTruth) -> list[Sentence]:
        """One or two things in view, monsters first."""
        found = (fact[len("object:") :] for fact in sorted(truth.facts) if "object:" in fact)
        nouns = [noun for noun in found if "@" not in noun]
        order = [nouns[int(i)] for i in self._rng.permutation(len(nouns))]
        order.sort(key=lambda noun: noun not in MONSTER_NOUNS)
        return [self._thing(noun, truth) for noun in order[: 2 if self._chance(0.4) else 1]]

    def _thing(self, noun: str, truth: GroundTruth) -> Sentence:
        """A thing, how many of it and where, e.g. "two imps on the left"."""
        said = {f"object:{noun}"}
        facts = sorted(truth.facts)
        count = next((fact for fact in facts if fact.startswith(f"count:{noun}=")), "")
        sides = [fact for fact in facts if fact.startswith(f"object:{noun}@")]
        if count and self._chance(0.8):
            said.add(count)
            phrase = f"{'two' if count.endswith('=2') else 'several'} {plural(noun)}"
            sides = sides if len(sides) == 1 else []
        else:
            name = noun.replace("_", " ")
            phrase = f"some {name}" if noun in PLURAL else f"{article(name)} {name}"
        if sides and self._chance(0.85):
            side = sides[int(self._rng.integers(len(sides)))]
            said.add(side)
            phrase += " " + self._one_of(SIDES[side.split("@")[1]])
        return Sentence(phrase, frozenset(said))


def article(phrase: str) -> str:
    """A or an."""
    return "an" if phrase[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """The plural of a noun; `_` becomes a space."""
    name = noun.replace("_", " ")
    return name[:-1] + "ies" if name.endswith("ery") else name + "s"


def prompts() -> dict[str, dict[str, list[str]]]:
    """Sentences for classification by text: for each action, in the words of the captions."""
    weapons = [names[0] for names in WEAPON_NAMES.values()]
    forms = ["{p}", "I am {p}", "now {p}", *(f"{{p}} with the {weapon}" for weapon in weapons)]
    return {
        "action": {
            action: [form.format(p=phrase) for phrase in phrases for form in forms]
            for action, phrases in PHRASES.items()
        }
    }
