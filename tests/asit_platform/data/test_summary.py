import dataclasses
from pathlib import Path

import pytest

from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.summary import summarize
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

pytestmark = pytest.mark.ray  # for the dataset that is looked at


@pytest.fixture
def skipping(info: DatasetInfo, tmp_path: Path) -> DatasetInfo:
    return dataclasses.replace(info, folder=Place.of(tmp_path), skipped=2)


def test_why_clips_were_left_out(skipping: DatasetInfo, tmp_path: Path) -> None:
    rows = 'path,reason\n"/x/a\u2028b\nc.wav",digital silence\n/x/b.wav,"cannot be read (why)"\n'
    (tmp_path / "skipped.csv").write_text(rows, encoding="utf-8")
    assert summarize(skipping)["skipped_reasons"] == {"digital silence": 1, "cannot be read": 1}


def test_a_missing_list_is_one_line(skipping: DatasetInfo) -> None:
    with pytest.raises(PlatformError, match=r"skipped\.csv: must be readable, but") as caught:
        summarize(skipping)
    assert "\n" not in str(caught.value)
