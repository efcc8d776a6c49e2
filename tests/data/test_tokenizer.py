import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vatt.data.tokenizer import WordTokenizer
from vatt.errors import CheckpointError, ConfigError

TEXTS = ["Turn left!", "turn RIGHT, then left", "don't shoot"]


def test_words_are_lower_cased_and_stripped_of_punctuation():
    words = WordTokenizer.build(TEXTS)
    left, turn = words.encode(["left turn"], 2)[0]
    assert words.encode(["LEFT... (turn)?"], 4).tolist() == [[left, turn, 0, 0]]
    assert words.encode(["dont"], 1) == words.encode(["don't"], 1)


def test_frequent_words_come_first_and_equal_ones_in_word_order():
    words = WordTokenizer.build(TEXTS)
    order = ["left", "turn", "dont", "right", "shoot", "then"]
    assert words.encode([" ".join(order)], 6).tolist() == [[2, 3, 4, 5, 6, 7]]
    assert words.vocabulary_size == 8


def test_unknown_words_are_kept_as_unknown():
    words = WordTokenizer.build(TEXTS)
    assert words.encode(["turn zebra left"], 3).tolist() == [[3, 1, 2]]


def test_long_texts_are_cut_and_short_ones_padded():
    words = WordTokenizer.build(TEXTS)
    assert words.encode(["left " * 20, "left", "", "?!"], 3).tolist() == [
        [2, 2, 2],
        [2, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_vocabulary_is_limited_in_size_and_by_count():
    assert WordTokenizer.build(TEXTS, max_words=3).encode(["left turn"], 2).tolist() == [[2, 1]]
    assert WordTokenizer.build(TEXTS, min_count=2).vocabulary_size == 4
    with pytest.raises(ConfigError, match="found 2, expected 3"):
        WordTokenizer.build(TEXTS, max_words=2)


def test_saved_vocabulary_gives_the_same_ids(tmp_path):
    words = WordTokenizer.build(TEXTS)
    words.save(tmp_path / "tokenizer.json")
    loaded = WordTokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.encode(TEXTS) == words.encode(TEXTS)).all()
    assert loaded.vocabulary_size == words.vocabulary_size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "not a tokenizer file"),
        (json.dumps({"model": {"type": "BPE"}}), "found a BPE tokenizer"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        WordTokenizer.load(path)


def test_a_vocabulary_without_padding_at_zero_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    WordTokenizer.build(TEXTS).save(path)
    swapped = json.loads(path.read_text())
    swapped["model"]["vocab"] |= {"<pad>": 2, "left": 0}
    path.write_text(json.dumps(swapped))
    with pytest.raises(CheckpointError, match="expected \\('<pad>', '<unk>'\\)"):
        WordTokenizer.load(path)


@given(st.lists(st.text(string.ascii_letters + " \t\n.,;-'\"$%", max_size=30), max_size=5))
def test_words_are_those_of_plain_python(texts):
    unwanted = str.maketrans("", "", string.punctuation)
    expected = [text.lower().translate(unwanted).split() for text in texts]
    words = WordTokenizer.build(texts)
    assert [words.words_of(text) for text in texts] == expected
    assert words.vocabulary_size == 2 + len({word for text in expected for word in text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我喜欢学习，你好", "我 喜 欢 学 习 你 好"),
        ("らーめんを食べるDVDプレーヤー・ビデオ", "らー め ん を 食 べ る dvd プレーヤー ビデオ"),
        ("สวัสดีเปิดประตู", "ส วั ส ดี เปิ ด ป ระ ตู"),
        ("ສະບາຍດີ", "ສະ ບາ ຍ ດີ"),
        ("សួស្តីពិភពលោក", "សួ ស្តី ពិ ភ ព លោ ក"),
        ("មួយ\u200bពីរ", "មួ យ ពី រ"),
        ("မင်္ဂလာပါ", "မ င်္ဂ လာ ပါ"),
        ("བཀྲ་ཤིས", "བཀྲ ཤིས"),
        ("ሰላም፡ልዑል", "ሰላም ልዑል"),
        ("안녕하세요 세계", "안녕하세요 세계"),
        ("Привет, мир!", "привет мир"),
        ("مرحبا بالعالم", "مرحبا بالعالم"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("cafe\u0301 CAFÉ ﬁn", "café café fin"),
        ("ＧＰＵ\u3000ｶﾞｽ 第4回", "gpu ガス 第 4 回"),
    ],
)
def test_words_are_found_in_every_script(text, expected, tmp_path):
    words = WordTokenizer.build([text])
    assert words.words_of(text) == expected.split()
    assert (words.encode([text])[0, : len(expected.split())] > 1).all()
    words.save(tmp_path / "tokenizer.json")
    read = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))  # as others do
    assert read.encode(text).tokens == expected.split()


def test_a_tokenizer_of_an_older_version_keeps_its_words(tmp_path):
    path = tmp_path / "tokenizer.json"
    WordTokenizer.build(["left"]).save(path)
    older = json.loads(path.read_text(encoding="utf-8"))
    replaced = {"type": "Replace", "pattern": {"Regex": r"[\p{P}\p{S}]"}, "content": ""}
    older["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, replaced]}
    older["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    path.write_text(json.dumps(older), encoding="utf-8")
    assert WordTokenizer.load(path).words_of("Left, 你好!") == ["left", "你好"]
