"""Which precision this machine computes fast and safely, and how fast it is."""

from __future__ import annotations

import time
from functools import cache

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def pick_dtype(name: str = "auto", device: str | None = None) -> tuple[torch.dtype, str]:
    """The dtype to compute in and the reason in words. `device` is cuda or cpu; None takes a GPU where there is one."""
    if name != "auto":
        return DTYPES[name], f"{name}: asked for in the recipe"
    if (device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda"):
        title = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"bf16: {title} computes it natively"
        return torch.float16, f"fp16: {title} has no bf16"
    flags = torch.cpu.get_capabilities()
    for flag, title in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")):
        if flags.get(flag):
            return torch.bfloat16, f"bf16: this CPU has {title}"
    if flags.get("architecture") == "x86_64":
        return torch.float32, "fp32: this CPU has neither AMX nor AVX512-BF16"
    fast, slow = matmul_rate(torch.bfloat16), matmul_rate(torch.float32)
    if fast > 1.3 * slow:
        return torch.bfloat16, f"bf16: measured {fast / slow:.1f} times as fast as fp32 on this CPU"
    return torch.float32, f"fp32: bf16 measured only {fast / slow:.1f} times as fast on this CPU"


@cache
def matmul_rate(dtype: torch.dtype, device: str = "cpu", size: int = 768) -> float:
    """Floating-point operations per second of a square product, measured once per process in about 0.04 s."""
    own = torch.Generator(device).manual_seed(0)  # the global state belongs to the training that measures this
    a_NN = torch.randn(size, size, device=device, generator=own).to(dtype)
    _multiply(a_NN)  # the first one also chooses a kernel, and on a GPU loads libraries
    taken = [_multiply(a_NN) for _ in range(3)]
    while sum(taken) < 0.03:
        taken.append(_multiply(a_NN))
    return 2 * size**3 / min(taken)


def _multiply(a_NN: torch.Tensor) -> float:
    """Seconds of one product."""
    before = time.perf_counter()
    b_NN = a_NN @ a_NN
    b_NN[0, 0].item()  # waits for the device
    return time.perf_counter() - before
