"""PyTorch, which only training and reconstruction need, and the device that it works on."""

from __future__ import annotations

from typing import Any

from stemcodecs.errors import ConfigurationError

__all__ = ["choose_device", "import_torch"]


def import_torch(what: str = "this", instead: str = "") -> Any:
    """PyTorch, where it is installed.

    Parameters
    ----------
    what : str
        What needs it, in words.
    instead : str
        What to do without it, in words.

    Raises
    ------
    ConfigurationError
        It is not installed.
    """
    try:
        import torch
    except ImportError:
        alternative = f", or {instead}" if instead else ""
        raise ConfigurationError(
            f"{what} needs PyTorch; install it with: pip install 'stemcodecs[train]'{alternative}"
        ) from None
    return torch


def choose_device(wanted: str | None) -> Any:
    """The device that is asked for, or CUDA where PyTorch finds it, or the CPU.

    Raises
    ------
    ConfigurationError
        PyTorch is not installed, or there is no such device.
    """
    torch = import_torch()
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"no device {wanted} ({' '.join(str(error).split())[:80]}); choose cpu, or leave it out"
        ) from None
    return device
