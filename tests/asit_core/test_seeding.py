import numpy as np
import torch

from asit_core import seeding

_MASK = 2**64 - 1


def _splitmix64(state: int) -> int:
    """One output of the published algorithm, on Python's unbounded integers."""
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def test_uniform_is_splitmix64():
    keys = seeding.clip_keys(3, "mask", 5, ["a", "b", "ü"])
    draws = seeding.uniform(keys, 4)
    for row, key in zip(draws, keys.tolist(), strict=True):
        state = key & _MASK
        for draw in row.tolist():
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            assert draw == (_splitmix64(state) >> 11) * 2.0**-53


def test_skipping_draws_changes_none():
    keys = seeding.clip_keys(3, "mask", 5, ["a", "b"])
    assert torch.equal(seeding.uniform(keys, 3, skip=4), seeding.uniform(keys, 7)[:, 4:])


def test_known_first_outputs_of_splitmix64_from_seed_zero():
    # Reference outputs of the published C program for state 0.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    draws = seeding.uniform(torch.zeros(1, dtype=torch.int64), 3)[0].tolist()
    assert draws == [(value >> 11) * 2.0**-53 for value in expected]


def test_draws_look_uniform_and_independent_of_the_batch():
    clip_ids = [f"clip-{i}" for i in range(500)]
    draws = seeding.uniform(seeding.clip_keys(0, "crop", 1, clip_ids), 40)
    assert abs(draws.mean().item() - 0.5) < 0.01
    assert abs(draws.var().item() - 1 / 12) < 0.005
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.15
    alone = seeding.uniform(seeding.clip_keys(0, "crop", 1, ["clip-17"]), 7)
    assert torch.equal(alone[0], draws[17, :7])


def test_purposes_keys_and_seeds_are_separate_streams():
    draws = [
        torch.rand(3, generator=seeding.stream(*key))
        for key in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, "a1")]
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
    assert torch.equal(draws[0], torch.rand(3, generator=seeding.stream(0, "a")))
    assert seeding.numpy_stream(0, "a").random() == seeding.numpy_stream(0, "a").random()


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return state["key"].tobytes(), state["pos"]


def test_no_global_generator_moves():
    before = torch.get_rng_state(), _numpy_state()
    seeding.stream(0, "x")
    seeding.uniform(seeding.clip_keys(0, "x", 0, ["a"]), 3)
    seeding.numpy_stream(0, "x").random()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == _numpy_state()
