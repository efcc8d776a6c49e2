"""The report of a real tiny run: one file that stands alone and says what was and was not done."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vatt.evaluation.classifiers import LowRankConfig
from vatt.tasks import linear_eval, report, zero_shot
from vatt.tasks.report import ReportConfig


class Reader(HTMLParser):
    """Checks that every tag is closed in order, and keeps tags and words."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(tiny.run, folder, ignore=shutil.ignore_patterns("results"))
    return folder


@pytest.fixture(scope="module")
def page(run, tiny) -> str:
    zero_shot.run(zero_shot.ZeroShotConfig(run=run, prompts=tiny.clips / "prompts.json"))
    low_rank = LowRankConfig(steps=50)
    linear_eval.run(linear_eval.LinearEvalConfig(run=run, low_rank=low_rank, few_labels=2))
    config = ReportConfig(run=run, title="Less < more & so on", notes=("Squares, not <life>.",))
    return report.run(config).path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_from_outside(page, read):
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert "@import" not in page
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in read.images)


def test_texts_of_users_are_shown_as_they_are(read):
    words = "".join(read.words)
    assert "Less < more & so on" in words
    assert "Squares, not <life>." in words


def test_the_numbers_are_those_of_the_results(page, run):
    results = json.loads((run / "results" / "zero-shot.json").read_text())
    text = results["text_to_video"]
    cells = "".join(f"<td>{text[name]:.1f}</td>" for name in ("R@1", "R@5", "R@10", "MedR"))
    assert f"<tr><th>text → video</th>{cells}" in page
    linear = json.loads((run / "results" / "linear-eval.json").read_text())
    accuracy = linear["sound_event"]["pretrained"]
    cells = "".join(f"<td>{accuracy[name]:.3f}</td>" for name in ("svm", "lrc", "knn"))
    assert cells in page
    for words in ("untrained", "chance", "ceiling", "one still frame"):
        assert words in page


def test_each_example_shows_the_right_clip_exactly_once(page):
    queries = page.split('<div class="example">')[1:]
    assert len(queries) == 8
    for query in queries:
        assert query.count('class="clip right"') == 1
        place = int(re.findall(r"right clip at place (\d+) of", query)[0])
        assert f"<b>{place}. the right clip:</b>" in query
        assert query.count('<figure class="clip') == (5 if place <= 5 else 6)


def test_curves_spaces_and_densities_are_drawn(page, read):
    words = "".join(read.words)
    for title in ("learning rate", "video and text: common space", "video and audio: entering"):
        assert title in words
    assert page.count("<svg") == 3


def test_the_same_run_gives_the_same_page(page, run):
    config = ReportConfig(run=run, title="Less < more & so on", notes=("Squares, not <life>.",))
    assert report.run(config).path.read_text(encoding="utf-8") == page


def test_a_run_that_was_not_measured_says_so(tiny, tmp_path):
    shutil.copytree(tiny.run, tmp_path / "run", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "run" / "metrics.jsonl").unlink()
    text = report.run(ReportConfig(run=tmp_path / "run", examples=1)).path.read_text()
    assert "Retrieval was not measured" in text
    assert "No classifier was tried" in text
    assert "How it learned" not in text


def test_every_part_names_the_videos_that_it_is_about(page):
    text = " ".join(page.split())
    assert "Clips of videos of split test. One is right among" in text
    fitted = "Fitted on training videos (split train), settings chosen on videos of split val"
    assert f"{fitted}, tested once on videos of split test." in text
    for part in ("Captions of", "a clip's audio of", "Of"):
        assert f"{part} videos of split test" in text


def test_a_report_on_training_videos_says_so(run, page):
    seen = report.run(ReportConfig(run=run, split="train")).path.read_text(encoding="utf-8")
    text = " ".join(seen.split())
    assert "Captions of training videos (split train)" in text
    assert "are of the videos it was trained on" in text
    assert "are of the videos it was trained on" not in " ".join(page.split())
    assert "never seen" not in seen + page


def test_shards_named_from_where_training_ran_are_found_from_any_folder(
    tiny, tmp_path, monkeypatch
):
    shutil.copytree(tiny.run, tmp_path / "runs" / "a", ignore=shutil.ignore_patterns("results"))
    shutil.copytree(tiny.shards, tmp_path / "my" / "shards")
    settings = tmp_path / "runs" / "a" / "config.toml"
    text = settings.read_text().replace(str(tiny.shards), "my/shards")
    assert '"my/shards"' in text
    settings.write_text(text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (Path("../runs/a"), tmp_path / "runs" / "a"):
        result = zero_shot.run(zero_shot.ZeroShotConfig(run=folder, split="train"))
        assert result.split == "train"
    written = json.loads(result.path.read_text())
    assert written["on_training_videos"]
    assert written["shards"] == [str(tmp_path / "my" / "shards")]
    assert 0 <= written["text_to_video"]["unknown_words"] <= 1
