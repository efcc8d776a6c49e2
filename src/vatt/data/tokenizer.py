"""Texts → word ids (§3.1, §4.3): lower-cased, without punctuation, split into words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFKC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.pre_tokenizers import Split, WhitespaceSplit

from vatt.errors import CheckpointError, ConfigError

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1
# Marks that stand between words where others write a space: the zero-width space (Khmer, Thai), the
# Tibetan tsheg, the Japanese middle dot, the Ethiopic word space.
SPACES = r"[\u200B\u0F0B\u0F0C\u30FB\u1361]"
# What is a word where no space is written between words. Finding whole words there takes a large
# dictionary. These pieces take none and never cut a word where it cannot be cut: a Han or Hiragana
# letter, a run of Katakana, and in the scripts of South-East Asia a consonant (or a stack of them)
# with the vowels and marks that are written around it.
UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Bopomofo}]\u30FC*"
    r"|[\p{Katakana}\u30FC]+"
    r"|[\u0E40-\u0E44\u0EC0-\u0EC4]?[\p{Thai}\p{Lao}]"
    r"(?:\p{M}|[\u0E30\u0E32\u0E33\u0E45\u0EB0\u0EB2\u0EB3\u0EBD])*"
    r"|[\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}]"
    r"(?:[\u17D2\u1039\u1A60][\p{Khmer}\p{Myanmar}\p{Tai_Tham}]|\p{M})*"
)
MAX_WORDS = 2**16  # §4.3: "the vocabulary size of 2^16, which is the same as word2vec"


class WordTokenizer:
    """A vocabulary of whole words; words outside it are all the same `<unk>`."""

    def __init__(self, tokenizer: Tokenizer, *, where: str = "tokenizer") -> None:
        """Take a Hugging Face tokenizer as it is.

        Args:
            tokenizer: of the kind that `build` makes.
            where: what to call it in errors.

        Raises:
            CheckpointError: id 0 is not padding, or there is no unknown word.
        """
        found = tokenizer.id_to_token(0), tokenizer.id_to_token(1)
        if found[0] != PADDING or tokenizer.token_to_id(UNKNOWN) is None:
            raise CheckpointError(
                f"{where}: found the words {found} at ids 0 and 1, expected {(PADDING, UNKNOWN)}; "
                "give the tokenizer.json that was written with the model"
            )
        self._tokenizer = tokenizer

    @classmethod
    def build(
        cls, texts: Iterable[str], *, max_words: int = MAX_WORDS, min_count: int = 1
    ) -> WordTokenizer:
        """Make a vocabulary of the most frequent words; equally frequent ones in word order.

        Args:
            texts: the captions of the training videos.
            max_words: size of the vocabulary at most, padding and the unknown word included.
            min_count: leave out words that occur less often.

        Raises:
            ConfigError: `max_words` leaves no room for a word.
        """
        return cls.of_counts(count_words(texts), max_words=max_words, min_count=min_count)

    @classmethod
    def of_counts(
        cls, counts: Mapping[str, int], *, max_words: int, min_count: int = 1
    ) -> WordTokenizer:
        """As `build`, of how often each word occurs."""
        if max_words < 3:
            raise ConfigError(f"max_words: found {max_words}, expected 3 or more")
        frequent = [word for word, count in counts.items() if count >= min_count]
        frequent.sort(key=lambda word: (-counts[word], word))
        words = [PADDING, UNKNOWN, *frequent[: max_words - 2]]
        return cls._of({word: number for number, word in enumerate(words)})

    @classmethod
    def read_list(cls, path: Path) -> WordTokenizer:
        """Read a word list, the official code's vocabulary: line n is the word with id n.

        Raises:
            CheckpointError: the file cannot be read, repeats a word, or lacks padding (first) or
                the unknown word.
        """
        try:
            words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot read the word list: {error}") from error
        vocabulary = {word.strip("\r"): number for number, word in enumerate(words)}
        if len(vocabulary) < len(words):
            twice = next(word for word in words if words.count(word) > 1)
            raise CheckpointError(f"{path}: found {twice!r} twice, expected a word on each line")
        if words[0].strip("\r") != PADDING or UNKNOWN not in vocabulary:
            raise CheckpointError(
                f"{path}: found the first word {words[0]!r}, expected {PADDING!r}, and "
                f"{UNKNOWN!r} somewhere after it"
            )
        return cls._of(vocabulary)

    @classmethod
    def _of(cls, vocabulary: dict[str, int]) -> WordTokenizer:
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
        unwanted = Replace(Regex(r"[\p{P}\p{S}]"), "")
        tokenizer.normalizer = Normalizers(
            [Replace(Regex(SPACES), " "), unwanted, NFKC(), Lowercase()]
        )
        tokenizer.pre_tokenizer = PreTokenizers(
            [WhitespaceSplit(), Split(Regex(UNSPACED), "isolated")]
        )
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> WordTokenizer:
        """Read a `tokenizer.json`.

        Raises:
            CheckpointError: the file is missing or is not a word tokenizer.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot read the vocabulary: {error}") from error
        return cls.from_json(text, where=str(path))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> WordTokenizer:
        """As `load`, of a text."""
        try:
            kind = json.loads(text)["model"]["type"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: not a tokenizer file: {error!r}") from error
        if kind != "WordLevel":
            raise CheckpointError(f"{where}: found a {kind} tokenizer, expected WordLevel (words)")
        return cls(Tokenizer.from_str(text), where=where)

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json` that Hugging Face's tokenizers read too."""
        path.write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        """The text of its `tokenizer.json`."""
        return self._tokenizer.to_str(pretty=True)

    @property
    def vocabulary_size(self) -> int:
        """How many word ids there are, padding and the unknown word included."""
        return self._tokenizer.get_vocab_size()

    @property
    def unknown_id(self) -> int:
        """The id of all words that are outside the vocabulary."""
        found = self._tokenizer.token_to_id(UNKNOWN)
        assert found is not None  # checked when it was made
        return found

    def words_of(self, text: str) -> list[str]:
        """The words of a text as the vocabulary sees them, known or not."""
        plain = self._tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(plain)]

    def encode(self, texts: Sequence[str], words: int = 16) -> NDArray[np.int64]:
        """Word ids of texts: int64 [N, L], cut or padded with 0 to L = `words`.

        A text without words (empty, or punctuation alone) is a row of zeros.
        """
        ids = np.zeros((len(texts), words), np.int64)
        for row, text in zip(ids, texts, strict=True):
            found = self._tokenizer.encode(text).ids[:words]
            row[: len(found)] = found
        return ids


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs."""
    words_of = WordTokenizer._of({PADDING: 0, UNKNOWN: 1}).words_of
    return Counter(word for text in texts for word in words_of(text))
