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

from models import ema
from models.loss import LOSSES
from models.optim import OPTIMIZERS, cosine_lr, is_fixed_key, multistep_lr, param_groups, set_lr
from options.schema import TrainOpt
from utils import utils_dist
from utils.utils_checkpoint import load_weights
from utils.utils_dist import Dist
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")
AMP_DTYPES = {"bf16": torch.bfloat16}


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
        if opt.compile:
            raise UserError("train.compile is true, but compiling the network is not supported; set it to false")
        if opt.amp.enable and opt.amp.dtype not in AMP_DTYPES:
            raise UserError(f"train.amp.dtype is {opt.amp.dtype!r}; supported: {', '.join(AMP_DTYPES)}")
        self.opt, self.dist = opt, dist
        self.netG = net.to(dist.device)
        self.netE = copy.deepcopy(self.netG).eval().requires_grad_(False) if opt.E_decay > 0 else None
        self.loss = LOSSES[opt.G_lossfn_type]
        groups = param_groups(self.netG, opt.G_optimizer_lr, opt.fix_keys, opt.fix_lr_mul)
        self.optimizer = OPTIMIZERS[opt.G_optimizer_type](
            groups, lr=opt.G_optimizer_lr, betas=opt.G_optimizer_betas, weight_decay=opt.G_optimizer_wd
        )
        self._parallel: tuple[bool, nn.Module] | None = None  # (frozen, netG wrapped for that)

    def train_step(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
        """One optimizer step.

        Args:
            batches: one batch per accumulation: `lq` (B, T, 3, h, w), `gt` the same, `spike` (B, T, S, h, w) or absent.
            step: finished optimizer steps before this one.

        Returns:
            G_loss, grad_norm (before clipping) and lr.
        """
        lr = self.learning_rate(step)
        set_lr(self.optimizer, lr)
        net = self._trainable(step)
        net.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for i, batch in enumerate(batches):
            with self._gradient_sync(net, last=i == len(batches) - 1):
                with self._autocast():
                    out = net(network_input(batch).to(self.dist.device))
                loss = self.loss(out, batch["gt"].to(self.dist.device), self.opt.G_charbonnier_eps)
                loss = self.opt.G_lossfn_weight * loss / len(batches)
                loss.backward()
            total += loss.item()
        limit = self.opt.G_optimizer_clipgrad or float("inf")
        norm = nn.utils.clip_grad_norm_(self.netG.parameters(), limit).item()
        if not math.isfinite(norm) or not math.isfinite(total):
            keys = ", ".join(key for batch in batches for key in batch.get("key", ()))
            raise FloatingPointError(
                f"step {step}: loss {total:g}, gradient norm {norm:g} of {keys or 'the batch'}; the weights are as "
                "before; lower train.G_optimizer_lr, set G_optimizer_clipgrad, or turn amp off"
            )
        self.optimizer.step()
        if self.netE is not None:
            ema.update(self.netE, self.netG, self.opt.E_decay)
        return {"G_loss": total, "grad_norm": norm, "lr": lr}

    @torch.no_grad()
    def restore(self, x: Tensor) -> Tensor:
        """Restore frames with the averaged weights where there are some.

        Args:
            x: (1, T, C, h, w), RGB and spike planes.

        Returns:
            (1, T, 3, h, w) float32 on the CPU, not clamped.
        """
        net = (self.netG if self.netE is None else self.netE).eval()
        with self._autocast():
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
            "state": {"optimizer": self.optimizer.state_dict()},
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

    def _trainable(self, step: int) -> nn.Module:
        """netG with the parts that `fix_keys` names frozen before `fix_iter`, wrapped anew when that changes."""
        frozen = step + 1 < self.opt.fix_iter
        if self._parallel is None or self._parallel[0] != frozen:
            for name, parameter in self.netG.named_parameters():
                parameter.requires_grad_(not (frozen and is_fixed_key(name, self.opt.fix_keys)))
            self._parallel = (frozen, utils_dist.wrap(self.dist, self.netG))
        return self._parallel[1]

    def _autocast(self) -> torch.autocast:
        amp = self.opt.amp
        return torch.autocast(self.dist.device.type, AMP_DTYPES.get(amp.dtype), enabled=amp.enable)

    @staticmethod
    def _gradient_sync(net: nn.Module, last: bool) -> AbstractContextManager:
        """Processes exchange gradients in the last of several accumulated backward passes only."""
        return net.no_sync() if isinstance(net, DistributedDataParallel) and not last else ExitStack()


def network_input(batch: Mapping[str, Tensor]) -> Tensor:
    """RGB and, where the batch has them, spike planes behind it: (B, T, 3 + S, h, w)."""
    return torch.cat((batch["lq"], batch["spike"]), dim=2) if "spike" in batch else batch["lq"]
