"""The number format of matrix products, and which one is the faster on a device."""

import platform

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def fastest_precision(device: torch.device) -> str:
    """bf16 where the device has instructions for it; elsewhere it is emulated, which took up to fifty times longer."""
    return "bf16" if _has_bfloat16(device) else "fp32"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8  # of this GPU, and not of the current one
    if not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # AVX512 alone would do for oneDNN, but no better than float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
