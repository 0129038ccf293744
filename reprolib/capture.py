"""Capture a function of tensors as one CUDA graph, so that a step of many small kernels costs a single launch."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # plain calls before the capture, in which cuDNN chooses algorithms and the allocator and autograd settle


class Captured:
    """``function`` on CUDA: the first calls run normally, the next one is captured, and later calls replay the capture.

    Every call computes its result, also during warm-up, so that nothing has to be undone. Requirements on ``function``:

    - its arguments are tensors on ``device``, with the same shapes and dtypes in every call;
    - it does not read values: no ``item()``, no copy to the host, no shape that depends on data;
    - everything else that it reads or writes (weights, momentum, table, learning rate) stays at the same address;
    - its random numbers come from CUDA's default generator, which a graph advances in the same way as plain calls.

    The tensor that a call returns is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device):
        """Prepare the capture; nothing runs yet."""
        self.function, self.calls = function, 0
        self.stream = torch.cuda.Stream(device)  # for plain calls and the capture; replays run on the caller's stream
        self.graph: torch.cuda.CUDAGraph | None = None
        self.arguments: tuple[Tensor, ...] = ()
        self.result: Tensor | None = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Return the function's result without waiting for the device, except in the call that captures."""
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
        """Capture one call; nothing is computed yet."""
        self.arguments = tuple(argument.clone() for argument in arguments)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.result = self.function(*self.arguments)
        self.graph = graph
