import math

import pytest

from asit_core.schedules import cosine, learning_rate, linear_ramp


def _dino_schedule(
    base: float, final: float, total: int, warmup: int, warmup_start: float
) -> list[float]:
    """DINO's table of values, written out: a ramp that includes both its ends, then a cosine."""
    table = []
    for step in range(warmup):
        share = step / (warmup - 1) if warmup > 1 else 0.0
        table.append((1 - share) * warmup_start + share * base)
    rest = total - warmup
    for step in range(rest):
        table.append(final + 0.5 * (base - final) * (1 + math.cos(math.pi * step / rest)))
    return table


@pytest.mark.parametrize(
    ("total", "warmup"),
    [(total, warmup) for total in (1, 2, 7, 40) for warmup in (0, 1, 2, 7, 40) if warmup <= total],
)
@pytest.mark.parametrize(("base", "final"), [(1e-3, 1e-6), (0.04, 0.4), (0.996, 1.0)])
def test_cosine_is_dinos_table(total, warmup, base, final):
    ours = [
        cosine(
            step,
            base=base,
            final=final,
            total_steps=total,
            warmup_steps=warmup,
            warmup_start=1e-7,
        )
        for step in range(total)
    ]
    expected = _dino_schedule(base, final, total, warmup, 1e-7)
    assert ours == pytest.approx(expected, rel=1e-14, abs=1e-16)


def test_the_warm_up_starts_at_its_start_and_ends_on_the_base():
    values = [
        cosine(step, base=2.0, final=0.5, total_steps=10, warmup_steps=4) for step in range(10)
    ]
    assert values[0] == 0.0
    assert values[3] == values[4] == 2.0
    assert values[4:] == sorted(values[4:], reverse=True)
    assert values[-1] > 0.5  # it would arrive one step later


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(
        ValueError, match=r"warmup_steps must be at most total_steps \(5\), but got 6"
    ):
        cosine(0, base=1.0, final=0.0, total_steps=5, warmup_steps=6)


@pytest.mark.parametrize("ramp", [2, 3, 30])
def test_linear_ramp_is_dinos_table(ramp):
    expected = [0.04 + (0.07 - 0.04) * step / (ramp - 1) for step in range(ramp)] + [0.07] * 5
    ours = [linear_ramp(step, start=0.04, end=0.07, ramp_steps=ramp) for step in range(ramp + 5)]
    assert ours == pytest.approx(expected, rel=1e-14)
    assert ours[0] == 0.04
    assert ours[ramp - 1] == ours[-1] == 0.07


@pytest.mark.parametrize("ramp", [0, 1])
def test_without_a_ramp_the_end_holds_throughout(ramp):
    assert [linear_ramp(step, start=0.04, end=0.07, ramp_steps=ramp) for step in range(3)] == [
        0.07
    ] * 3


def test_a_ramp_longer_than_the_run_is_simply_cut_off():
    # The released program crashes here: epochs < warm-up epochs.
    assert linear_ramp(9, start=0.0, end=1.0, ramp_steps=31) == pytest.approx(0.3)


@pytest.mark.parametrize("step", [0, 1, 9, 10, 25, 99])
def test_a_cosine_learning_rate_is_the_cosine(step):
    arguments = {"base": 2.0, "final": 0.5, "total_steps": 100, "warmup_steps": 10}
    assert learning_rate(step, shape="cosine", **arguments) == cosine(step, **arguments)


def test_a_line_and_a_constant_after_the_same_warm_up():
    arguments = {"base": 2.0, "final": 0.5, "total_steps": 50, "warmup_steps": 10}
    for step in range(50):
        line = learning_rate(step, shape="linear", **arguments)
        constant = learning_rate(step, shape="constant", **arguments)
        if step < 10:
            assert line == constant == pytest.approx(2.0 * step / 9)
        else:
            assert line == pytest.approx(2.0 - 1.5 * (step - 10) / 40)
            assert constant == 2.0


def test_ssasts_warm_up_climbs_stairs_of_fifty_steps():
    """H16: the released program sets the rate at every 50th of its first 1000 steps."""
    held = 0.0
    for step in range(1100):
        if step <= 1000 and step % 50 == 0:
            held = step / 1000 * 1e-4
        ours = learning_rate(
            step,
            shape="constant",
            base=1e-4,
            final=0.0,
            total_steps=800_000,
            warmup_steps=1000,
            warmup_stairs=20,
        )
        assert ours == pytest.approx(held, rel=1e-12)


def test_stairs_that_do_not_divide_the_warm_up_never_fall():
    rates = [
        learning_rate(
            step,
            shape="cosine",
            base=1.0,
            final=0.0,
            total_steps=40,
            warmup_steps=7,
            warmup_stairs=3,
        )
        for step in range(9)
    ]
    assert rates[:8] == sorted(rates[:8])
    assert set(rates[:7]) == {0.0, 1 / 3, 2 / 3}
    assert rates[7] == 1.0
