"""Several processes that train one model, as ``torchrun`` starts them, each on its share of every batch.

Only the backbone is shared out. Its pooled vectors are gathered, so that head, dropout, loss and table update see the
whole batch in every process, as one process would, and draw the same random numbers.
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

PATIENCE = timedelta(days=1)  # the others wait while the first evaluates, merges, or waits for another run


@dataclass(frozen=True)
class Team:
    """This process among those that train together; alone, all of it is free."""

    rank: int = 0
    size: int = 1

    def own(self, rows: Tensor) -> Tensor:
        """This process's share of the rows of a batch, whose number ``size`` divides."""
        return rows.chunk(self.size)[self.rank]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes in order, (n, d) -> (size * n, d); the gradient flows to one's own."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        distributed.all_gather(parts, rows.detach().contiguous())
        parts[self.rank] = rows
        return torch.cat(parts)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes the sum of all processes'."""
        if self.size > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            total = torch.cat([g.flatten() for g in gradients])
            distributed.all_reduce(total)
            for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def tell(self, message: Any = None) -> Any:
        """What the first process says, in every process."""
        if self.size == 1:
            return message
        said = [message]
        distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        return said[0]

    def align(self, model: nn.Module) -> None:
        """The first process's weights and buffers, everywhere; stem and body normalize by the whole batch."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                whole = tensor.contiguous()
                distributed.broadcast(whole, src=0)
                tensor.copy_(whole)
            for part in (model.stem, model.body):
                _share_statistics(part)


ALONE = Team()


def is_first() -> bool:
    """Whether this process speaks and forgets: that of rank 0 of those that ``torchrun`` started, or one alone."""
    return int(os.environ.get("RANK", 0)) == 0 or not distributed.is_torchelastic_launched()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The processes that ``torchrun`` started with this one; the process alone where it did not."""
    size = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():  # once a process, for all its runs: torchrun's store outlives a group
        # An optimizer imports this later, and what it imports holds any group that is there: the group's threads would
        # then outlive it, and be cut off with the interpreter, which aborts the process every now and then.
        from torch import _dynamo  # noqa: F401

        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    yield Team(distributed.get_rank(), size)


def _share_statistics(layers: nn.Sequential) -> None:
    """Of every BatchNorm2d in it, in place: by PyTorch's own layer on CUDA, which has none for a CPU."""
    if next(layers.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(layers)
        return
    for module in layers.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm  # the same fields, another forward pass


class _SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d by mean and variance of all processes' samples, each having equally many."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h, w)."""
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        values = x.float()  # statistics keep all their bits in bf16 too
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
    """The sum over processes; so is its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
