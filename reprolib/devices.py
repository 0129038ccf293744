"""Which device a run computes on."""

import torch


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or CUDA where there is one.

    Raises:
        ValueError: an unknown device, or CUDA where there is none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown; give cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: {torch.cuda.device_count()} CUDA devices here; give cpu or one of them")
    return chosen
