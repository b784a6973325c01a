"""torch.compile, with a fallback to the plain network."""

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

LOG = logging.getLogger("spikevrt")
Call = Callable[..., Tensor]
LONGEST_REASON = 300  # characters


class Compiled(nn.Module):
    """A network run through torch.compile, or as it is after compiling has failed.

    Shapes are static: each new tile or crop size is compiled once, and the time is logged. Parameter names stay those
    of the network.
    """

    def __init__(self, net: nn.Module, backend: str | Callable = "inductor") -> None:
        super().__init__()
        self.net = net
        self._seen: set[torch.Size] = set()
        self._fast: Call | None = None
        try:
            self._fast = torch.compile(net.forward, backend=backend, dynamic=False)
        except RuntimeError as error:  # this Python or system is not supported
            _give_up(error)

    def forward(self, x: Tensor, *spike: Tensor) -> Tensor:
        if self._fast is None:
            return self.net(x, *spike)
        start = time.perf_counter()
        try:
            out = self._fast(x, *spike)
        except torch._dynamo.exc.TorchDynamoException as error:  # torch.compile imported it
            self._fast = None
            _give_up(error)
            return self.net(x, *spike)
        if x.shape not in self._seen:
            self._seen.add(x.shape)
            size, seconds = "x".join(map(str, x.shape)), time.perf_counter() - start
            LOG.info("compiled for %s, %s, in %.1f s", size, "training" if self.net.training else "testing", seconds)
        return out


def _give_up(error: Exception) -> None:
    cause = getattr(error, "inner_exception", error)
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    LOG.warning(
        "train.compile: compiling failed, continuing without it: %s: %s", type(cause).__name__, reason[:LONGEST_REASON]
    )
