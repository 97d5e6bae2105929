import math

import numpy as np
import pytest

from asit_platform.analysis.statistics import mean_interval, paired_interval


def test_three_values_match_the_textbook_formula():
    # t(0.975, 2) = 4.302653 from the table; standard deviation of 1, 2, 3 is 1.
    half_width = 4.302653 / math.sqrt(3)

    result = mean_interval([1.0, 2.0, 3.0])

    assert result.mean == 2.0
    assert result.num_values == 3
    assert result.interval == pytest.approx((2 - half_width, 2 + half_width), abs=1e-6)


def test_a_single_value_has_no_interval():
    assert mean_interval([0.5]) == (0.5, None, 1)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.5, 0.5, 0.5]).interval == (0.5, 0.5)


def test_a_higher_level_is_wider():
    narrow, wide = (mean_interval([1.0, 2.0, 4.0], level=level).interval for level in (0.8, 0.99))

    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.7, 0.05, size=(2000, 3))

    intervals = [mean_interval(list(row)).interval for row in draws]

    covered = np.mean([low <= 0.7 <= high for low, high in intervals])  # pyright: ignore
    # Binomial standard deviation of 2,000 draws at 0.95 is 0.005; three of them.
    assert covered == pytest.approx(0.95, abs=0.015)


def test_pairing_removes_what_seeds_share():
    control = [0.5, 0.7, 0.9]
    treated = [value + 0.1 for value in control]

    paired = paired_interval(treated, control)

    assert paired.mean == pytest.approx(0.1)
    assert paired.interval == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "at least one number"), ([0.1, math.nan], "finite"), ([math.inf], "finite")],
)
def test_what_has_no_mean_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_out_of_range_is_refused(level):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        mean_interval([1.0, 2.0], level=level)


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_interval([1.0, 2.0], [1.0])
