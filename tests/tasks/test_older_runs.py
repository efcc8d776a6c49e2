"""Run folders that an older version began: today's settings do not stand in their way."""

from pathlib import Path

import pytest

from vatt.config import from_values, merge, read_toml, to_values
from vatt.run_folder import claim_folder
from vatt.tasks import finetune, pretrain

OLDER = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("command", "settings", "free", "earlier"),
    [
        ("pretrain", pretrain.PretrainConfig, pretrain.FREE, pretrain.EARLIER),
        ("finetune", finetune.FinetuneConfig, finetune.FREE, finetune.EARLIER),
    ],
)
def test_a_run_goes_on_with_what_a_setting_was_before_it_was_one(
    tmp_path, command, settings, free, earlier
):
    """A new setting is free to change, or says what it was: else this fails."""
    older = OLDER / f"{command}-of-an-older-version.toml"
    (tmp_path / "config.toml").write_bytes(older.read_bytes())
    before = read_toml(older)
    before.pop("clips_at_once", None)  # train.micro_batch today
    today = to_values(from_values(settings, before, where=str(older)))
    goes_on = claim_folder(tmp_path, today, free=free, earlier=earlier, advice="")
    assert merge(goes_on, before) == goes_on  # what it says holds
    assert from_values(settings, goes_on, where=command)
