"""Guess the language of captions."""

from __future__ import annotations

import functools
import importlib
from typing import Any

_LEAST_LETTERS, _LEAST_PROBABILITY = 60, 0.9  # below, no language is better than a wrong one


@functools.cache
def identifier() -> Any:
    """The language model; None when its package, the extra "audit", is not installed."""
    try:
        langid = importlib.import_module("py3langid.langid")
    except ModuleNotFoundError:
        return None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def guess_language(text: str) -> str:
    """The likely language of a text (ISO 639-1); empty when the guess is not sure enough."""
    if sum(map(str.isalpha, text)) < _LEAST_LETTERS or identifier() is None:  # takes 0.5 s
        return ""
    name, probability = identifier().classify(text)
    return str(name) if probability >= _LEAST_PROBABILITY else ""
