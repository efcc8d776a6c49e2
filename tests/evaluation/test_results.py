"""Result files are whole, versioned, and say what they are about."""

import json

import pytest

from vatt.errors import CheckpointError
from vatt.evaluation.results import file_hash, ids_hash, read_result, write_result


def test_a_result_is_read_back_with_its_versions(tmp_path):
    write_result(tmp_path, "zero-shot", {"text_to_video": {"R@1": 2.5, "n": 500}})
    found = read_result(tmp_path, "zero-shot")
    assert found is not None
    assert found["text_to_video"] == {"R@1": 2.5, "n": 500}
    assert {"python", "torch", "vatt"} <= set(found["versions"])


def test_a_task_that_was_not_run_has_no_result(tmp_path):
    assert read_result(tmp_path, "linear-eval") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "zero-shot"}', '{"format_version": "x"}'])
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "zero-shot.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"zero-shot\.json: not a result file"):
        read_result(tmp_path, "zero-shot")


def test_a_newer_format_is_refused(tmp_path):
    path = write_result(tmp_path, "zero-shot", {})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": "2.0"}))
    with pytest.raises(CheckpointError, match=r"format version 2\.0, expected 1\.0 or older"):
        read_result(tmp_path, "zero-shot")


def test_numbers_that_are_not_numbers_are_never_written(tmp_path):
    write_result(tmp_path, "zero-shot", {"R@1": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(tmp_path, "zero-shot", {"R@1": float("nan")})
    kept = read_result(tmp_path, "zero-shot")
    assert kept is not None
    assert kept["R@1"] == 1.0


def test_hashes_change_with_content_and_order(tmp_path):
    assert ids_hash(["a", "b"]) != ids_hash(["b", "a"])
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    first = file_hash(path)
    path.write_bytes(b"two")
    assert file_hash(path) != first
    with pytest.raises(CheckpointError, match="cannot read"):
        file_hash(tmp_path / "absent")
