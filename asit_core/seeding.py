"""Named, independent random streams: no draw of ours ever touches a global generator.

Two kinds of stream serve two kinds of draw:

- `stream` and `numpy_stream` give an ordinary generator for what is drawn once (initial weights, an
  epoch's order). The generator's seed is a hash of `(seed, purpose, *keys)`.
- `clip_keys` and `uniform` serve what is drawn per clip inside a training step (crops, masks, drop
  path). A draw depends on the clip, not on the batch it sits in: neither order, nor worker count,
  nor gradient accumulation changes it, and CPU and GPU draw the same numbers.

`uniform` is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014), written on int64 tensors.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # as a signed 64-bit integer
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _hash(*parts: int | str) -> int:
    """Unsigned 64-bit hash in which ("a", 1) and ("a1",) differ."""
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream(seed: int, purpose: str, *keys: int | str) -> torch.Generator:
    """Independent CPU generator for one purpose.

    Args:
        seed: The trial's seed.
        purpose: What is drawn, such as "init" or "order".
        keys: What the draw belongs to, such as an epoch.
    """
    generator = torch.Generator()
    generator.manual_seed(_hash(seed, purpose, *keys))
    return generator


def numpy_stream(seed: int, purpose: str, *keys: int | str) -> np.random.Generator:
    """As `stream`, for NumPy."""
    return np.random.default_rng(_hash(seed, purpose, *keys))


def clip_keys(
    seed: int, purpose: str, epoch: int, clip_ids: Sequence[str], *keys: int | str
) -> Tensor:
    """One 64-bit key per clip, to be expanded by `uniform`.

    Args:
        seed: The trial's seed.
        purpose: What is drawn, such as "crop" or "mask".
        epoch: A clip is met once an epoch, so (epoch, clip) is a fresh draw.
        clip_ids: B clips.
        keys: What else tells draws apart, such as the view.

    Returns:
        int64 tensor (B,) on the CPU.
    """
    hashes = [_hash(seed, purpose, epoch, *keys, clip_id) for clip_id in clip_ids]
    return torch.from_numpy(np.array(hashes, dtype=np.uint64).view(np.int64))


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical shift; `>>` on int64 copies the sign bit."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def uniform(keys_B: Tensor, num: int, *, skip: int = 0) -> Tensor:
    """Uniform draws in [0, 1), the same on every device.

    Args:
        keys_B: int64 keys from `clip_keys`, any leading shape.
        num: Draws per key.
        skip: Draws of each key's stream to pass over, at no cost.

    Returns:
        float64 tensor (B, num): draws `skip` to `skip + num` of each key's stream.

    Source: SplitMix64, Steele et al. 2014, Fig. 17; the upper 53 bits make the float.
    """
    counter = torch.arange(skip + 1, skip + num + 1, dtype=torch.int64, device=keys_B.device)
    bits = keys_B.unsqueeze(-1) + counter * _GOLDEN_GAMMA
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    bits = bits ^ _shift_right(bits, 31)
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53
