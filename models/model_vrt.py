"""ModelVRT: the training step and restoration. Combines network, loss, optimizer and average; keeps no batch."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import ema, optim, precision
from models.compiled import Compiled
from models.guard import StepGuard
from models.loss import total_loss
from models.memory.estimate import apply_policy
from options.schema import TrainOpt
from utils import utils_dist
from utils.checkpoint.optimizer_state import load_named_state, named_state
from utils.utils_checkpoint import load_weights
from utils.utils_dist import Dist
from utils.utils_rgbspike import RGBSpike, Window, restored_of, tensors_of

LOG = logging.getLogger("spikevrt")


class ModelVRT:
    """A network, (B, D, C, H, W) and, with spikes, (B, D, S, h, w) -> (B, D, 3, H, W), and all that its training needs.

    netG has the trained weights, netE their moving average; None where `opt.E_decay` is 0.
    """

    def __init__(self, net: nn.Module, opt: TrainOpt, dist: Dist) -> None:
        self.opt, self.dist = opt, dist
        precision.set_tf32(opt.tf32)
        self.amp_dtype = precision.amp_dtype(opt.amp)
        # Keeps small float16 gradients from underflowing.
        self.scaler = torch.amp.GradScaler(dist.device.type, enabled=self.amp_dtype == torch.float16)
        self.netG = net.to(dist.device)
        optim.freeze(self.netG, opt.freeze)
        self.optimizer = optim.make_optimizer(self.netG, opt)
        self.average = ema.MovingAverage(self.netG, opt.E_decay) if opt.E_decay > 0 else None
        self.netE = None if self.average is None else self.average.net
        self.guard = StepGuard(opt.nonfinite_limit, opt.spike_limit)
        self._parallel: tuple[bool, nn.Module] | None = None  # (frozen, netG wrapped for that)
        self._restorer: nn.Module | None = None  # netE or netG, wrapped for restoring

    def train_step(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
        """One optimizer step. A step that `models.guard` rejects changes no weights, in any process.

        Args:
            batches: one batch per accumulation: `lq` (B, T, 3, H, W), `gt` the same; with spikes also `spike`
                (B, T, S, h, w) and, for counts, `spike_scale` (B, T, S) and `is_linear` (B,).
            step: optimizer steps finished before this one.

        Returns:
            The same in every process: the mean G_loss, its terms if there are several (G_pixel, G_fft, G_edge), skipped
            (steps skipped in the whole run), grad_norm (before clipping) and lr.
        """
        lr = optim.learning_rate(step + 1, self.opt)
        optim.set_lr(self.optimizer, lr)
        net = self._trainable(step, batches[0])
        net.train()
        self.optimizer.zero_grad(set_to_none=True)
        own = self._backward(net, batches)
        self.scaler.unscale_(self.optimizer)
        limit = self.opt.G_optimizer_clipgrad or float("inf")
        norm = nn.utils.clip_grad_norm_(self.netG.parameters(), limit).item()
        values = utils_dist.mean(self.dist, own)
        loss = values["G_loss"]
        reason = self.guard.reason_to_skip(loss, norm)
        if reason is None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average is not None:
                self.average.update(self.netG)
            self.guard.count_taken(loss, norm)
        elif not math.isfinite(loss + norm) and precision.lower_scale(self.scaler):
            LOG.info("step %d skipped: gradients overflow; loss scale now %g", step, self.scaler.get_scale())
        else:
            if math.isfinite(loss + norm):
                self.scaler.update()
            self.guard.count_skipped(loss, norm)
            self._log_skipped(step, reason, batches, own["G_loss"])
        return {**values, "skipped": self.guard.total, "grad_norm": norm, "lr": lr}

    def _backward(self, net: nn.Module, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Accumulate the gradients of all batches; returns this process's mean loss and, if several, its terms."""
        sums: Counter[str] = Counter()
        for i, batch in enumerate(batches):
            # Processes exchange gradients only in the last of several accumulated backward passes.
            with net.no_sync() if isinstance(net, DistributedDataParallel) and i + 1 < len(batches) else nullcontext():
                with precision.autocast(self.dist.device, self.amp_dtype):
                    window = network_input(batch)
                    out = net(*tensors_of(window, self.dist.device))
                loss, terms = total_loss(restored_of(window, out), batch["gt"].to(self.dist.device), self.opt)
                self.scaler.scale(loss / len(batches)).backward()
            named = {"G_loss": loss, **(terms if len(terms) > 1 else {})}
            sums.update({name: value.item() for name, value in named.items()})
        return {name: value / len(batches) for name, value in sums.items()}

    def _log_skipped(self, step: int, reason: str, batches: Sequence[Mapping[str, Any]], loss: float) -> None:
        """Log a skipped step with the clips and frames of the processes whose own loss is at fault."""
        keys = [key for batch in batches for key in batch.get("key", ())]
        everybody = utils_dist.gather_objects(self.dist, (math.isfinite(loss), keys))
        at_fault = [part for finite, part in everybody if not finite] or [part for _, part in everybody]
        samples = ", ".join(key for part in at_fault for key in part) or "the batch"
        LOG.warning("step %d skipped: %s; %d in a row, %s", step, reason, self.guard.in_row, samples)

    @torch.no_grad()
    def restore(self, x: Window) -> Tensor:
        """Restore frames with the averaged weights if there are any, in the precision of training.

        (1, T, C, h, w), with spikes as an RGBSpike -> (1, T, 3, h, w) float32 on the CPU, not clamped.
        """
        if self._restorer is None:
            self._restorer = self._runnable(self.netG if self.netE is None else self.netE)
        net = self._restorer.eval()
        with precision.autocast(self.dist.device, self.amp_dtype):
            out: Tensor = net(*tensors_of(x, self.dist.device)).float()
        return restored_of(x, out).cpu()

    def load_pretrained(self, netG: str | None, netE: str | None) -> None:
        """Load weights from files, each optional ("auto": no file); without its own file netE starts from netG."""
        if netG is not None and netG != "auto":
            LOG.info("netG from %s: %s", netG, load_weights(self.netG, netG, self.opt.G_param_strict))
        if self.average is None:
            return
        self.average.restart(self.netG)
        if netE is not None and netE != "auto":
            LOG.info("netE from %s: %s", netE, load_weights(self.average.net, netE, self.opt.E_param_strict))
            self.average.skip_warmup()

    def state_dicts(self) -> dict[str, dict[str, Any]]:
        """All that the next step depends on, by kind of file: G, E and state."""
        states: dict[str, dict[str, Any]] = {
            "G": self.netG.state_dict(),
            "state": {
                "optimizer": named_state(self.optimizer, self.netG),
                "scaler": self.scaler.state_dict(),
                "guard": self.guard.state_dict(),
                "average_updates": 0 if self.average is None else self.average.updates,
            },
        }
        if self.netE is not None:
            states["E"] = self.netE.state_dict()
        return states

    def load_state_dicts(self, states: Mapping[str, Any]) -> None:
        """Exact inverse of `state_dicts`; a moving average new to this run starts from netG."""
        load_weights(self.netG, states["G"])
        if self.netE is not None:
            load_weights(self.netE, states.get("E", states["G"]))
        load_named_state(self.optimizer, self.netG, states["state"]["optimizer"])
        if "guard" in states["state"]:
            self.guard.load_state_dict(states["state"]["guard"])
        if self.average is not None and "E" in states:
            self.average.skip_warmup()
            self.average.updates = states["state"].get("average_updates", self.average.updates)
        scale = states["state"].get("scaler")  # empty or absent in a checkpoint of another precision
        if self.scaler.is_enabled() and scale:
            self.scaler.load_state_dict(scale)

    def _trainable(self, step: int, batch: Mapping[str, Tensor]) -> nn.Module:
        """netG, its `fix_keys` parameters frozen before `fix_iter`; wrapped again when that changes."""
        if self._parallel is None:
            shape = network_input(batch).shape
            apply_policy(self.netG, self.opt.memory, shape, self.dist.device, self.amp_dtype)
        frozen = step + 1 < self.opt.fix_iter
        if self._parallel is None or self._parallel[0] != frozen:
            if self._parallel is not None and self.opt.compile:
                torch.compiler.reset()  # what is compiled may not see that parameters start to learn (PyTorch 2.8)
            optim.freeze_fix_keys(self.optimizer, frozen)
            self._parallel = (frozen, utils_dist.wrap(self.dist, self._runnable(self.netG)))
        return self._parallel[1]

    def _runnable(self, net: nn.Module) -> nn.Module:
        return Compiled(net) if self.opt.compile else net


def network_input(batch: Mapping[str, Tensor]) -> Window:
    """Frames (B, T, 3, h, w), as an RGBSpike if the batch has spikes."""
    if "spike" not in batch:
        return batch["lq"]
    is_linear = "is_linear" in batch and bool(batch["is_linear"].any())
    return RGBSpike(batch["lq"], batch["spike"], batch.get("spike_scale"), is_linear)
