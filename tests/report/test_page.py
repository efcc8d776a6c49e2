"""Pages show values as they are, frames at their own aspect, and refuse values that are missing."""

import base64
import io
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from PIL import Image

import vatt.report
from vatt.audit.findings import KINDS, Finding
from vatt.report.audit_page import audit_page
from vatt.report.page import jpeg, render

KIND = next(iter(KINDS))
NASTY = """<b>"it's" & more</b>"""


def page(findings: list[Finding], **thumbnails: np.ndarray) -> str:
    frames = {("shards", key): value for key, value in thumbnails.items()}
    return audit_page(["shards"], {}, {"videos": 1234}, findings, frames, most=2)


def finding(key: str, detail: str = "", others: tuple[tuple[str, str], ...] = ()) -> Finding:
    return Finding(kind=KIND, folder="shards", shard="a.tar", key=key, detail=detail, others=others)


def test_values_are_text_wherever_they_stand():
    text = page([finding("a", NASTY)], a=np.zeros((1, 8, 8, 3), np.uint8))
    assert "<b>&#34;" not in text
    assert "&lt;b&gt;&#34;it&#39;s&#34; &amp; more&lt;/b&gt;" in text


def test_frames_stand_side_by_side_and_keep_their_aspect():
    frames = np.zeros((5, 40, 30, 3), np.uint8)
    image = jpeg(frames)
    assert (image.width, image.height) == (150, 40)
    read = Image.open(io.BytesIO(base64.b64decode(image.src.partition(",")[2])))
    assert read.size == (150, 40)
    text = page([finding("a")], a=frames)
    assert 'width="150" height="40"' in text
    (rule,) = re.findall(r"\.clip img {([^}]*)}", text)
    assert "width: 100%; height: auto;" in rule


def test_an_audit_shows_the_worst_and_lists_more_of_them():
    findings = [finding(f"v{number}", f"{number} s") for number in range(60)]
    frames = {f"v{number}": np.zeros((1, 8, 8, 3), np.uint8) for number in range(60)}
    text = page(findings, **frames)
    assert text.count("data:image/jpeg;base64,") == 2
    assert text.count("<li>") == 50
    assert "<li>shards / a.tar / v49: 49 s</li>" in text
    assert "10 more: audit.json has all" in text
    assert "<dd>1,234</dd>" in text
    assert "Nothing was found" in page([])


def test_what_a_video_is_compared_with_is_shown_beside_it():
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    text = page([finding("a", others=(("shards", "b"),))], a=frames, b=frames)
    assert text.count('<figure class="clip other">') == 2


def test_a_template_without_a_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("audit.html")


def test_html_is_in_templates_only():
    folder = Path(vatt.report.__file__).parents[1]
    html = re.compile(r"</?(p|div|span|table|t[rdh]|h[1-6]|ul|li|figure|img|dl|html|body)\b[^\n]*>")
    found = {
        str(path.relative_to(folder)): match.group()
        for path in folder.rglob("*.py")
        if "captions" not in path.parts  # they read formats that are HTML
        and (match := html.search(path.read_text(encoding="utf-8")))
    }
    assert not found
