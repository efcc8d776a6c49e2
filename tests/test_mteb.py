"""MTEB's own checks of a model, and its four clips of the whole item."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import vatt
from vatt.contracts import ClipSpec

pytest.importorskip("mteb", reason='needs the extra "mteb"')


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of mteb and what it imports
def test_a_model_passes_the_checks_of_mteb(tiny):
    import mteb

    from vatt.mteb import VattMteb

    model = VattMteb(str(tiny.run))
    found = mteb.mock_run(model)
    assert found.all_passed, found.to_markdown()
    ran = {row[1]: row[0] for row in found.modality_summary()}
    assert ran["text"].startswith("✓")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_frames_and_audio_are_those_of_four_clips_of_the_whole(tiny):
    from vatt.mteb import VattMteb, four_clips

    asked = []

    def played(seconds):
        asked.extend(seconds)
        shown = torch.tensor(seconds).mul(10).to(torch.uint8)
        return SimpleNamespace(data=shown[:, None, None, None].expand(-1, 3, 24, 32))

    video = SimpleNamespace(
        metadata=SimpleNamespace(average_fps=25.0, end_stream_seconds=12.0),
        get_frames_played_at=played,
    )
    spec = ClipSpec(frames=4, fps=4, height=24, width=32)
    frames = four_clips(video, spec, True)
    assert frames.shape == (4, 4, 24, 32, 3)
    np.testing.assert_allclose(asked[::4], [0, 11 / 3, 22 / 3, 11])
    np.testing.assert_allclose(frames[3, 0], 110 / 127.5 - 1, atol=1e-5)

    file = sorted((tiny.clips / "test").glob("*.mp4"))[0]
    model = VattMteb(str(tiny.run))
    own = vatt.load(tiny.run)
    from vatt.media.media_file import decode_audio

    track = decode_audio(file, sample_rate_hz=own.spec.sample_rate_hz)
    assert track is not None
    item = {"array": track / 2**15, "sampling_rate": own.spec.sample_rate_hz}
    rows = model._of("audio", [item, None])
    torch.testing.assert_close(
        rows[0, : model.widths[0]], own.encode_audio(file).va[0], atol=1e-2, rtol=0
    )
    assert not rows[1].any()
