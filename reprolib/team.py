"""Training one model with several processes, started by ``torchrun``: each handles a share of every batch.

Only the backbone's work is divided. Its pooled vectors are gathered, so that head, dropout, loss and table update see
the whole batch in every process, as in a single process, and draw the same random numbers.
"""

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(days=1)  # the other processes wait while the first evaluates, merges, or waits for another run


@dataclass(frozen=True)
class Team:
    """This process among those that train together; for a single process every method is free of cost."""

    rank: int = 0
    size: int = 1

    def own(self, rows: Tensor) -> Tensor:
        """Return this process's share of the rows of a batch; their number must be divisible by ``size``."""
        return rows.chunk(self.size)[self.rank]

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows of all processes in order, (n, d) -> (size * n, d); own rows get the gradient."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        distributed.all_gather(parts, rows.detach().contiguous())
        parts[self.rank] = rows
        return torch.cat(parts)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum every gradient over all processes, in place."""
        if self.size > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            total = torch.cat([g.flatten() for g in gradients])
            distributed.all_reduce(total)
            for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def tell(self, message: Any = None) -> Any:
        """Return the first process's message, in every process."""
        if self.size == 1:
            return message
        said = [message]
        distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        return said[0]

    def align(self, model: nn.Module) -> None:
        """Copy the first process's weights and buffers to all; make stem and body normalize by the whole batch."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                whole = tensor.contiguous()
                distributed.broadcast(whole, src=0)
                tensor.copy_(whole)
            for part in (model.stem, model.body):
                _share_statistics(part)


ALONE = Team()


def is_first() -> bool:
    """Return whether this process prints and deletes: it is alone, or has rank 0 among those of ``torchrun``."""
    return int(os.environ.get("RANK", 0)) == 0 or not distributed.is_torchelastic_launched()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """Yield the team of processes that ``torchrun`` started, or a single process without ``torchrun``."""
    size = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():  # once per process, for all its runs: torchrun's store outlives a group
        # An optimizer imports this module later, and it then keeps a reference to any existing group: the group's
        # threads would outlive the group and be killed with the interpreter, which sometimes aborts the process.
        from torch import _dynamo  # noqa: F401

        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    yield Team(distributed.get_rank(), size)


def _share_statistics(layers: nn.Sequential) -> None:
    """Make every BatchNorm2d share its statistics, in place; PyTorch's own layer for this works only on CUDA."""
    if next(layers.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(layers)
        return
    for module in layers.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm  # the same fields, another forward pass


class _SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the mean and variance over the samples of all processes, which have equally many each."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize: (n, c, h, w) -> (n, c, h, w)."""
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        values = x.float()  # statistics are computed in float32 for bf16 too
        mean = _Sum.apply(values.sum((0, 2, 3))) / count
        centered = values - mean[:, None, None]
        variance = _Sum.apply(centered.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias[:, None, None], centered, scale[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is summed in the same way."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
