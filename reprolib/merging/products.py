"""Points whose squared distances one matrix product gives: exactly in float64, or quicker and with a proven bound."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import threshold_

from reprolib.criteria import ROUNDING
from reprolib.devices import multiplying_in

BITS = {"bf16": 8, "tf32": 11, "ieee": 24}  # significant bits of what is multiplied; sums are float32 in all three


@dataclass(frozen=True)
class Points:
    """Points p and q are at squared distance ``base_p + base_q − 2 p·q``."""

    values: Tensor  # (P, d)
    base: Tensor  # (P,)
    precision: str  # of the products, a key of BITS; for float64 it does not matter
    slack: float  # how far a squared distance may be off; 0 in float64, where that is ROUNDING

    def __len__(self) -> int:
        """Number of points, P."""
        return len(self.values)

    def distances(self, rows: slice, columns: slice, out: Tensor) -> Tensor:
        """Squared distances of two ranges of points, written to ``out``: (R, K)."""
        with multiplying_in(self.precision, out.device):
            torch.addmm(self.base[None, columns], self.values[rows], self.values[columns].T, alpha=-2, out=out)
        out.add_(self.base[rows, None])
        return threshold_(out, ROUNDING, 0.0) if out.dtype == torch.float64 else out


def exact(values: Tensor, base: Tensor) -> Points:
    """Points for products in float64."""
    return Points(values.double(), base, "ieee", 0.0)


def screening(values: Tensor, base: Tensor, precision: str, largest: float) -> Points:
    """Points of ``values`` (P, d) for quick products; ``largest`` is M, what no ‖p‖² and no base exceeds.

    p becomes p̂ of few bits, whose products are exact in float32 whichever unit multiplies. With r = max‖p − p̂‖, p̂·q̂
    is within r (2√M + r) of p·q. Summed in any order it is off by at most γ‖p̂‖‖q̂‖ with γ = du / (1 − du), u = 2⁻²⁴
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); a matrix unit may cut off bits of the sums
    instead of rounding them (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021), for which γ is taken four
    times. Both errors count twice. The two bases add 2uM, the two additions 3uM and 4uM; all holds while 4du < 0.01.
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
    """The precision in which the device multiplies float32 matrices fastest."""
    if device.type == "cuda":
        return "tf32" if torch.cuda.get_device_capability(device) >= (8, 0) else "ieee"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "ieee"


def _rounded(values: Tensor, bits: int) -> Tensor:
    """Float32 rounded to so many significant bits, halves away from zero."""
    drop = 24 - bits
    if drop == 0:
        return values
    whole = values.view(torch.int32) + (1 << drop - 1)
    return whole.bitwise_and_(-(1 << drop)).view(torch.float32)
