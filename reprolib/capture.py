"""A function of tensors as one CUDA graph, so that a step of many small kernels costs a single launch."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # plain calls before the capture: cuDNN chooses algorithms, the allocator and autograd settle


class Captured:
    """``function`` on CUDA: its first calls run as they are, the next is captured, and from then on it is replayed.

    Every call computes, those that warm up too, so nothing has to be undone. What ``function`` asks for:

    - arguments are tensors on ``device``, of the same shapes and dtypes at each call;
    - nothing in it looks at a value: no ``item()``, no copy to the host, no shape that depends on data;
    - all else that it reads or writes (weights, momentum, table, learning rate) stays at the same place in memory;
    - random numbers come from CUDA's default generator, which a graph advances as plain calls would.

    The tensor that a call returns is overwritten by the next.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device):
        """Nothing runs yet."""
        self.function, self.calls = function, 0
        self.stream = torch.cuda.Stream(device)  # of the plain calls and the capture; replays are on the caller's
        self.graph: torch.cuda.CUDAGraph | None = None
        self.arguments: tuple[Tensor, ...] = ()
        self.result: Tensor | None = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The function's result; nothing waits for the device, but for the one call that captures."""
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            return self._plain(*arguments)
        if self.graph is None:
            self._capture(*arguments)
        for own, argument in zip(self.arguments, arguments, strict=True):
            own.copy_(argument, non_blocking=True)
        self.graph.replay()
        return self.result

    def _plain(self, *arguments: Tensor) -> Tensor:
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            result = self.function(*arguments)
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return result

    def _capture(self, *arguments: Tensor) -> None:
        """Record one call, which computes nothing yet."""
        self.arguments = tuple(argument.clone() for argument in arguments)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.result = self.function(*self.arguments)
        self.graph = graph
