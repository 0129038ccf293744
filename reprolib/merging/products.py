"""Squared distances from one matrix product: exact in float64, or faster in few bits with a proven error bound."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import threshold_

from reprolib.criteria import ROUNDING
from reprolib.devices import multiplying_in

BITS = {"bf16": 8, "tf32": 11, "ieee": 24}  # significant bits of the factors; sums are float32 in all three


@dataclass(frozen=True, eq=False)
class Points:
    """Points whose squared distance is ``base_p + base_q − 2 p·q``."""

    values: Tensor  # (P, d)
    base: Tensor  # (P,)
    precision: str  # precision of the products, a key of BITS; irrelevant for float64
    slack: float  # error bound of a squared distance; 0 in float64, whose error is within ROUNDING

    def __len__(self) -> int:
        """Number of points, P."""
        return len(self.values)

    def distances(self, rows: slice, columns: slice, out: Tensor) -> Tensor:
        """Write the squared distances between two ranges of points to ``out`` (R, K) and return it."""
        with multiplying_in(self.precision, out.device):
            torch.addmm(self.base[None, columns], self.values[rows], self.values[columns].T, alpha=-2, out=out)
        out.add_(self.base[rows, None])
        return threshold_(out, ROUNDING, 0.0) if out.dtype == torch.float64 else out


def screening(values: Tensor, base: Tensor, precision: str, largest: float) -> Points:
    """Make points of ``values`` (P, d) for fast products; ``largest`` is M, an upper bound of every ‖p‖² and base.

    p is rounded to p̂, which has few bits, so that its products are exact in float32 on any hardware. With
    r = max‖p − p̂‖, p̂·q̂ is within r (2√M + r) of p·q. Summing in any order adds an error of at most γ‖p̂‖‖q̂‖ with
    γ = du / (1 − du), u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). A matrix unit may
    truncate the sums instead of rounding them (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021), so γ is
    multiplied by four for it. Both errors count twice. The two bases add 2uM, the two additions 3uM and 4uM. The bound
    holds while 4du < 0.01.
    """
    rounded = _rounded(values.float(), BITS[precision])
    r = 0.0
    if rounded is not values:
        parts = zip(values.split(512), rounded.split(512), strict=True)
        r = 1.01 * float(torch.stack([torch.linalg.vector_norm(p - q, dim=1).max() for p, q in parts]).max())
    sums = 1 if precision == "ieee" else 4
    eps, reach = torch.finfo(torch.float32).eps, largest**0.5 + r
    slack = (1.01 * sums * values.shape[1] + 8) * eps * reach**2 + 2 * r * (2 * largest**0.5 + r)
    return Points(rounded, base.float(), precision, slack)


def quickest(device: torch.device) -> str:
    """Return the precision in which the device multiplies float32 matrices fastest."""
    if device.type == "cuda":
        return "tf32" if torch.cuda.get_device_capability(device) >= (8, 0) else "ieee"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)  # private: another torch may not have it
    return "bf16" if has_amx() else "ieee"


def _rounded(values: Tensor, bits: int) -> Tensor:
    """Round float32 values to ``bits`` significant bits, halves away from zero."""
    drop = 24 - bits
    if drop == 0:
        return values
    whole = values.view(torch.int32) + (1 << drop - 1)
    return whole.bitwise_and_(-(1 << drop)).view(torch.float32)
