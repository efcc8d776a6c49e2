"""Which data sets of a table are in a folder, and how much of each is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vatt.errors import DataError
from vatt.public_data.catalogue import DatasetFolder, dataset_named, problems_of_lists, read_folder
from vatt.public_data.listing import CAPTION, LABEL, PublicDataset, plain, roles
from vatt.public_data.preparing import split_with
from vatt.reproduce.published_results import PaperTask


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """What is there for one task.

    folder: of the data set; None without one.
    found: its lists and media; None where there are none, and `reason` says why.
    """

    task: PaperTask
    public: PublicDataset
    folder: Path | None
    found: DatasetFolder | None
    reason: str = ""

    @property
    def scratch(self) -> bool:
        """Whether the model starts from fresh weights."""
        return bool(self.task.changes.get("scratch"))

    @property
    def judged(self) -> str:
        """The split that judges: test, or val where nothing is known of test."""
        assert self.found is not None
        column = CAPTION if self.task.kind == "zero-shot" else LABEL
        return split_with(self.found, self.task.splits[0], column)

    def count(self, split: str | None = None) -> tuple[int, int]:
        """Files that the lists name and that are there: of a split, or of all.

        Of numbered splits those of all numbers that are judged, each as often as it is judged.
        """
        listed = there = 0
        assert self.found is not None
        pairs = list(zip(self.found.listing.files, self.found.matches, strict=True))
        for number in self.task.splits if split else self.task.splits[:1]:
            for one, match in pairs:
                if split in roles(one, number) if split else bool(one.splits):
                    listed += 1
                    there += match is not None
        return listed, there

    def captions(self, split: str) -> tuple[int, int]:
        """Captions of a split by the lists, and those of files that are there."""
        assert self.found is not None
        counts = [
            (sum(CAPTION in row for row in one.rows), match is not None)
            for one, match in zip(self.found.listing.files, self.found.matches, strict=True)
            if split in roles(one, self.task.splits[0])
        ]
        return sum(number for number, _ in counts), sum(n for n, there in counts if there)

    def differences(self) -> list[str]:
        """What differs from the paper's data set, each a sentence."""
        if self.found is None:
            return []
        said = problems_of_lists(self.found)
        listed, there = self.count()
        if there < listed:
            said.append(f"files that the lists name {listed:,}, there {there:,}")
        paper = self.task.videos
        if paper is not None and abs(there - paper) > 0.005 * paper:
            said.append(f"files there in all splits {there:,}, in the paper {paper:,} (§4.2)")
        return said


def find_data(task: PaperTask, folder: Path) -> TaskData:
    """Look for the data set of a task in a sub-folder of its name.

    Letters' case, blanks and punctuation do not count: `ucf101`, `UCF-101`, `Moments in Time`.
    """
    public = dataset_named(task.dataset)
    own = _subfolders(folder).get(plain(public.name))
    if own is None:
        reason = f"{folder}: no sub-folder {public.name}"
        return TaskData(task=task, public=public, folder=None, found=None, reason=reason)
    try:
        found = read_folder(public, own)
        data = TaskData(task=task, public=public, folder=own, found=found)
        listed, there = data.count(data.judged)
    except DataError as error:
        return TaskData(task=task, public=public, folder=own, found=None, reason=str(error))
    if not there:
        reason = f"{own}: of {listed:,} files of {data.judged} none is there"
        return TaskData(task=task, public=public, folder=own, found=None, reason=reason)
    return data


def _subfolders(folder: Path) -> Mapping[str, Path]:
    """Plain name → sub-folder.

    Raises:
        DataError: it is no folder.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: found no folder, expected one with a sub-folder for each data set, named "
            "as `vatt datasets list` names them"
        )
    return {plain(one.name): one for one in sorted(folder.iterdir()) if one.is_dir()}
