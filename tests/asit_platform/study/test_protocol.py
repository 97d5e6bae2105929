"""The protocol of a sweep's result, without running the sweep."""

import pytest

from asit_platform.data.dataset import DatasetInfo
from asit_platform.study.run import _protocol


@pytest.mark.parametrize(
    ("overrides", "readout"),
    [
        ((), "linear(features=mean)"),
        (("trial.probe.features=both",), "linear(features=both)"),
        (("trial.probe.kind=knn", "trial.probe.k=3"), "knn(features=mean, k=3)"),
        (("metric.name=probe/knn_accuracy",), "knn(features=mean, k=10)"),
    ],
)
def test_the_readout_names_every_setting_that_moves_the_number(
    tmp_path, tiny_data, toy_sweep, overrides, readout
):
    spec = toy_sweep.load(tmp_path, tiny_data, *overrides)
    info = DatasetInfo.open(tiny_data)
    protocol = _protocol(spec, info, {})
    assert protocol.readout == readout
    assert protocol.num_clips == len(info.clips([spec.split.test]))
