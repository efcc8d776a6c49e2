"""MTEB's own checks of a model, and its four clips of the whole item."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

import vatt
from vatt.contracts import ClipSpec

pytest.importorskip("mteb", reason='needs the extra "mteb"')


MOCK_RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mteb
from mteb.mocks import MOCK_MULTIMODAL_TASKS
from mteb.mocks.mock_run import get_compatible_mock_tasks
from mteb.results.task_result import TaskResult
from vatt.mteb import VattMteb
model = VattMteb(sys.argv[1])
found = mteb.mock_run(model)
print(found.to_markdown(), file=sys.stderr)
both = list(MOCK_MULTIMODAL_TASKS)  # video and audio of an item: mock_run leaves them out
done = mteb.evaluate(model, both, cache=None, raise_error=False, show_progress_bar=False)
print(done.exceptions, file=sys.stderr)
passed = [name for name, one in found.items() if isinstance(one, TaskResult)]
passed += [one.task_name for one in done.task_results]
given = [*get_compatible_mock_tasks(model), *both]
tasks = {one.metadata.name: one.metadata.modalities for one in given}
print(json.dumps({"tasks": tasks, "passed": passed}))
"""


def with_ffmpeg(folder):
    """An environment in which torchcodec finds FFmpeg's libraries: those inside PyAV."""
    libraries = Path(av.__file__).parent.with_name("av.libs")
    for file in libraries.glob("lib*-*.so.*"):  # libavcodec-5e6b81c2.so.62.28.102
        name = re.sub(r"-[0-9a-f]{8}(\.so\.\d+).*", r"\1", file.name)
        (folder / name).symlink_to(file)
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{libraries}"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchcodec") is None, reason="needs torchcodec")
def test_a_model_passes_all_checks_of_mteb(tiny, tmp_path):
    """Of texts, audio, video and both: none fails, and none of what it takes is left out."""
    done = subprocess.run(
        [sys.executable, "-c", MOCK_RUN, str(tiny.run)],
        env=with_ffmpeg(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["passed"]) == set(found["tasks"]), done.stderr
    kinds = Counter(kind for kinds in found["tasks"].values() for kind in kinds)
    assert set(kinds) == {"text", "audio", "video"}
    assert min(kinds.values()) >= 20


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
