"""A peer's encoder is opened by name, and its answers are checked."""

from types import SimpleNamespace

import pytest
import torch

import vatt
from vatt.any_encoder import PeerEncoder, open_encoder
from vatt.contracts import ClipSpec
from vatt.encoder import Encoder
from vatt.errors import ConfigError

SPEC = ClipSpec(frames=2, fps=4.0, height=8, width=8, sample_rate_hz=100)
PEER = """
from types import SimpleNamespace
from torch.nn.functional import normalize
from vatt.contracts import ClipSpec

class Colours:
    spec = ClipSpec(frames=2, fps=4.0, height=8, width=8, sample_rate_hz=100)
    encode_audio = None
    def encode_video(self, frames):
        return SimpleNamespace(features=frames.mean((1, 2, 3)), vt=normalize(frames[:, 0, 0, 0]))
    def encode_text(self, texts):
        return SimpleNamespace(vt=normalize(torch.tensor([[1.0, 2, 3]] * len(texts))))
"""


def peer(**answers) -> PeerEncoder:
    methods = {
        f"encode_{name}": (lambda *_, rows=rows, **__: SimpleNamespace(**rows))
        for name, rows in answers.items()
    }
    nothing = dict.fromkeys(("encode_video", "encode_audio", "encode_text"))
    return PeerEncoder(
        SimpleNamespace(spec=SPEC, **(nothing | methods)), "peer:made", torch.device("cpu")
    )


def test_a_factory_in_the_current_folder_is_an_encoder_with_a_name_and_a_hash(
    tmp_path, monkeypatch
):
    (tmp_path / "colours_here.py").write_text(PEER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    opened = open_encoder(None, "colours_here:Colours", "cpu")
    assert (opened.name, len(opened.hash)) == ("colours_here:Colours", 12)
    seen = opened.encoder.encode_video(torch.rand(3, 2, 8, 8, 3))
    rows = {name: getattr(seen, name) for name in ("features", "va", "vt")}
    assert {name: row is not None and row.shape for name, row in rows.items()} == {
        "features": (3, 3), "va": False, "vt": (3, 3),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="encode_audio is None: it takes no audio"):
        opened.encoder.encode_audio(torch.rand(1, 50), sample_rate_hz=100)


def test_a_model_of_ours_is_one_too(tiny):
    opened = open_encoder(tiny.run, None, "cpu")
    assert isinstance(opened.encoder, Encoder)
    assert opened.encoder.spec == vatt.load(tiny.run).spec
    assert opened.name == str(tiny.run)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"features": torch.ones(3, 4)}, r"shape \[3, 4\], expected \[2, width\]"),
        ({"features": torch.ones(2)}, r"shape \[2\], expected \[2, width\]"),
        ({"features": torch.full((2, 4), torch.nan)}, "NaN or infinite in 2 of 2 rows"),
        ({"va": torch.ones(2, 4)}, "rows of length 2 to 2, expected unit rows"),
        ({"features": "text"}, "features of encode_video: cannot be taken as a tensor"),
        ({"embedding": torch.ones(2, 4)}, "gave SimpleNamespace, expected an object with features"),
    ],
)
def test_answers_that_would_spoil_a_result_are_refused(rows, message):
    with pytest.raises(ConfigError, match=f"peer:made.*{message}"):
        peer(video=rows).encode_video(torch.rand(2, 2, 8, 8, 3))


def test_the_width_of_a_space_is_one(tmp_path):
    one = peer(video={"vt": torch.eye(2)}, text={"vt": torch.eye(2, 3)})
    one.encode_video(torch.rand(2, 2, 8, 8, 3))
    with pytest.raises(ConfigError, match="vt of encode_text: found width 3, expected 2"):
        one.encode_text(["a", "b"])


def test_what_is_no_encoder_says_what_it_lacks(tmp_path, monkeypatch):
    half = SimpleNamespace(encode_video=len, encode_audio=len)
    with pytest.raises(ConfigError, match=r"has no spec .*, no encode_text"):
        PeerEncoder(half, "peer:made", torch.device("cpu"))
    for name, message in (
        ("colours", "found 'colours', expected package.module:factory"),
        ("no_such_module:make", "cannot import no_such_module"),
        ("json:make", "json has no function make"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_encoder(None, name, "cpu")
    with pytest.raises(ConfigError, match="found neither"):
        open_encoder(None, None, "cpu")
