"""ModelVRT: one training step, and restoration. Composes network, loss, optimizer and average; holds no batch."""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import ema, precision
from models.compiled import Compiled
from models.estimate import apply_policy
from models.loss import LOSSES
from models.optim import OPTIMIZERS, cosine_lr, is_fixed_key, multistep_lr, param_groups, set_lr
from options.schema import TrainOpt
from utils import utils_dist
from utils.utils_checkpoint import load_weights
from utils.utils_dist import Dist

LOG = logging.getLogger("spikevrt")


class ModelVRT:
    """A network with all that its training needs.

    Args:
        net: the network to train, (B, D, C, H, W) -> (B, D, 3, H, W).
        opt: the `train` block of the options.
        dist: this process and its device.

    Attributes:
        netG: the trained weights.
        netE: their moving average, or None where `opt.E_decay` is 0.
    """

    def __init__(self, net: nn.Module, opt: TrainOpt, dist: Dist) -> None:
        self.opt, self.dist = opt, dist
        precision.set_tf32(opt.tf32)
        self.amp_dtype = precision.amp_dtype(opt.amp)
        self.scaler = precision.loss_scaler(dist.device, self.amp_dtype)
        self.netG = net.to(dist.device)
        self.netE = copy.deepcopy(self.netG).eval().requires_grad_(False) if opt.E_decay > 0 else None
        self.loss = LOSSES[opt.G_lossfn_type]
        groups = param_groups(self.netG, opt.G_optimizer_lr, opt.fix_keys, opt.fix_lr_mul)
        self.optimizer = OPTIMIZERS[opt.G_optimizer_type](
            groups, lr=opt.G_optimizer_lr, betas=opt.G_optimizer_betas, weight_decay=opt.G_optimizer_wd
        )
        self._parallel: tuple[bool, nn.Module] | None = None  # (frozen, netG wrapped for that)
        self._restorer: nn.Module | None = None  # netE or netG, wrapped for restoring

    def train_step(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
        """One optimizer step.

        Args:
            batches: one batch per accumulation: `lq` (B, T, 3, h, w), `gt` the same, `spike` (B, T, S, h, w) or absent.
            step: finished optimizer steps before this one.

        Returns:
            G_loss, grad_norm (before clipping) and lr.

        Raises:
            FloatingPointError: loss or gradient is not finite and no lower loss scale of fp16 can help.
        """
        lr = self.learning_rate(step)
        set_lr(self.optimizer, lr)
        net = self._trainable(step, batches[0])
        net.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for i, batch in enumerate(batches):
            with self._gradient_sync(net, last=i == len(batches) - 1):
                with precision.autocast(self.dist.device, self.amp_dtype):
                    out = net(network_input(batch).to(self.dist.device))
                loss = self.loss(out, batch["gt"].to(self.dist.device), self.opt.G_charbonnier_eps)
                loss = self.opt.G_lossfn_weight * loss / len(batches)
                self.scaler.scale(loss).backward()
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        limit = self.opt.G_optimizer_clipgrad or float("inf")
        norm = nn.utils.clip_grad_norm_(self.netG.parameters(), limit).item()
        if math.isfinite(norm) and math.isfinite(total):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.netE is not None:
                ema.update(self.netE, self.netG, self.opt.E_decay)
        elif precision.lower_scale(self.scaler):
            LOG.info("step %d left out: gradients overflow; loss scale now %g", step, self.scaler.get_scale())
        else:
            keys = ", ".join(key for batch in batches for key in batch.get("key", ()))
            raise FloatingPointError(
                f"step {step}: loss {total:g}, gradient norm {norm:g} of {keys or 'the batch'}; the weights are as "
                "before; lower train.G_optimizer_lr, set G_optimizer_clipgrad, or turn amp off"
            )
        return {"G_loss": total, "grad_norm": norm, "lr": lr}

    @torch.no_grad()
    def restore(self, x: Tensor) -> Tensor:
        """Restore frames with the averaged weights where there are some, in the precision of training.

        Args:
            x: (1, T, C, h, w), RGB and spike planes.

        Returns:
            (1, T, 3, h, w) float32 on the CPU, not clamped.
        """
        if self._restorer is None:
            self._restorer = self._runnable(self.netG if self.netE is None else self.netE)
        net = self._restorer.eval()
        with precision.autocast(self.dist.device, self.amp_dtype):
            return net(x.to(self.dist.device)).float().cpu()

    def learning_rate(self, step: int) -> float:
        """Base learning rate of the update that follows `step` finished ones."""
        opt, update = self.opt, step + 1
        if opt.G_scheduler_type == "MultiStepLR":
            lr = multistep_lr(update, opt.G_optimizer_lr, opt.G_scheduler_milestones, opt.G_scheduler_gamma)
        else:
            periods, mult = opt.scheduler_periods, opt.G_scheduler_restart_weights
            lr = cosine_lr(update, opt.G_optimizer_lr, opt.G_scheduler_eta_min, periods, mult, opt.total_iter)
        return lr * min(1.0, update / opt.warmup_iter) if opt.warmup_iter > 0 else lr

    def load_pretrained(self, netG: str | None, netE: str | None) -> None:
        """Start from files of weights, each optional ("auto" is none); without its own file netE follows netG."""
        for name, path, strict in (
            ("netG", netG, self.opt.G_param_strict),
            ("netE", netE, self.opt.E_param_strict),
        ):
            target = self.netG if name == "netG" else self.netE
            if target is not None and path is not None and path != "auto":
                LOG.info("%s from %s: %s", name, path, load_weights(target, path, strict))
            if name == "netG" and self.netE is not None:
                self.netE.load_state_dict(self.netG.state_dict())

    def state_dicts(self) -> dict[str, dict[str, Any]]:
        """All that the next step depends on, by the kind of file that holds it: G, E and state."""
        states: dict[str, dict[str, Any]] = {
            "G": self.netG.state_dict(),
            "state": {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()},
        }
        if self.netE is not None:
            states["E"] = self.netE.state_dict()
        return states

    def load_state_dicts(self, states: Mapping[str, Any]) -> None:
        """Exact inverse of `state_dicts`; a moving average that is new to this run starts at netG."""
        load_weights(self.netG, states["G"])
        if self.netE is not None:
            load_weights(self.netE, states.get("E", states["G"]))
        # The options of today rule the optimizer; only its moments come from the file.
        kept = [
            {key: group[key] for key in ("lr_mul", "betas", "weight_decay")} for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(states["state"]["optimizer"])
        for group, values in zip(self.optimizer.param_groups, kept, strict=True):
            group.update(values)
        scale = states["state"].get("scaler")  # empty or absent in a checkpoint of another precision
        if self.scaler.is_enabled() and scale:
            self.scaler.load_state_dict(scale)

    def _trainable(self, step: int, batch: Mapping[str, Tensor]) -> nn.Module:
        """netG with the parts that `fix_keys` names frozen before `fix_iter`, wrapped anew when that changes."""
        if self._parallel is None:
            shape = network_input(batch).shape
            apply_policy(self.netG, self.opt.memory, shape, self.dist.device, self.amp_dtype)
        frozen = step + 1 < self.opt.fix_iter
        if self._parallel is None or self._parallel[0] != frozen:
            for name, parameter in self.netG.named_parameters():
                parameter.requires_grad_(not (frozen and is_fixed_key(name, self.opt.fix_keys)))
            self._parallel = (frozen, utils_dist.wrap(self.dist, self._runnable(self.netG)))
        return self._parallel[1]

    def _runnable(self, net: nn.Module) -> nn.Module:
        return Compiled(net) if self.opt.compile else net

    @staticmethod
    def _gradient_sync(net: nn.Module, last: bool) -> AbstractContextManager:
        """Processes exchange gradients in the last of several accumulated backward passes only."""
        return net.no_sync() if isinstance(net, DistributedDataParallel) and not last else ExitStack()


def network_input(batch: Mapping[str, Tensor]) -> Tensor:
    """RGB and, where the batch has them, spike planes behind it: (B, T, 3 + S, h, w)."""
    return torch.cat((batch["lq"], batch["spike"]), dim=2) if "spike" in batch else batch["lq"]
