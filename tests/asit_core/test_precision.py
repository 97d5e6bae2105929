import pytest
import torch

from asit_core.precision import autocast, autocast_dtype

CPU = torch.device("cpu")


def test_a_named_precision_is_taken_everywhere():
    for device in (CPU, torch.device("cuda")):
        assert autocast_dtype("fp32", device) is None
        assert autocast_dtype("bf16", device) is torch.bfloat16


def test_auto_takes_bf16_where_the_cpu_multiplies_it():
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        pytest.skip("no /proc/cpuinfo to compare with")
    expected = torch.bfloat16 if "avx512_bf16" in flags else None
    assert autocast_dtype("auto", CPU) is expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_products_have_the_type_asked_for(dtype):
    matrix = torch.ones(2, 2)
    with autocast(CPU, dtype):
        assert (matrix @ matrix).dtype == (dtype or torch.float32)
    with autocast(CPU, torch.bfloat16), autocast(CPU, dtype):
        assert (matrix @ matrix).dtype == (dtype or torch.float32)
    assert (matrix @ matrix).dtype == torch.float32


@pytest.mark.gpu
def test_auto_takes_bf16_on_a_gpu_from_ampere_on():
    device = torch.device("cuda")
    expected = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else None
    assert autocast_dtype("auto", device) is expected
