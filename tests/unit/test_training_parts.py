"""Learning rate, losses, moving average, freezing, clipping."""

import pytest
import torch
from torch import nn

from models import ema
from models.loss import LOSSES, charbonnier
from models.model_vrt import ModelVRT
from models.optim import cosine_lr, multistep_lr
from options.schema import TrainOpt
from utils.utils_dist import Dist


class TinyNet(nn.Module):
    """Stands in for VRT: (B, T, C, h, w) -> (B, T, 3, h, w)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.spynet = nn.Linear(4, 3)
        self.body = nn.Linear(3, 3)

    def forward(self, x):
        return self.body(self.spynet(x.movedim(2, -1))).movedim(-1, 2)


def batch(scale=1.0):
    torch.manual_seed(1)
    return {
        "lq": torch.rand(1, 2, 3, 4, 4),
        "spike": torch.rand(1, 2, 1, 4, 4),
        "gt": scale * torch.rand(1, 2, 3, 4, 4),
    }


def test_cosine_ends_at_its_minimum_and_never_restarts_at_the_last_update():
    rates = [cosine_lr(update, 4e-4, 1e-7, (100,), 1, 100) for update in range(1, 101)]
    assert rates[-1] == pytest.approx(1e-7)
    assert all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False))


@pytest.mark.parametrize(("periods", "mult"), [((10,), 1), ((10,), 2)])
def test_cosine_equals_torch_inside_a_run(periods, mult):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, periods[0], mult, eta_min=0.1)
    for update in range(1, 60):
        schedule.step(update)
        assert cosine_lr(update, 1.0, 0.1, periods, mult, 1000) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_multistep_falls_at_each_milestone():
    assert [multistep_lr(update, 1.0, (3, 5), 0.5) for update in range(1, 7)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_charbonnier_has_a_finite_gradient_at_zero_in_half_precision():
    out = torch.zeros(4, dtype=torch.float16, requires_grad=True)
    charbonnier(out, torch.zeros(4), 1e-9).backward()
    assert torch.isfinite(out.grad).all()


def test_charbonnier_floor_is_the_root_of_eps():
    assert charbonnier(torch.ones(3), torch.ones(3), 1e-6).item() == pytest.approx(1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_grow_with_the_distance(name):
    zero = torch.zeros(4)
    assert LOSSES[name](zero + 0.2, zero, 1e-9) > LOSSES[name](zero + 0.1, zero, 1e-9)


def test_moving_average_follows_its_formula():
    average, net = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * average.weight.detach() + 0.1 * net.weight.detach()
    ema.update(average, net, 0.9)
    assert torch.allclose(average.weight, expected)


def test_fixed_keys_stay_until_fix_iter_and_then_learn_slower():
    opt = TrainOpt(fix_iter=3, fix_keys=("spynet",), fix_lr_mul=0.125, total_iter=10, G_optimizer_lr=0.01)
    model = ModelVRT(TinyNet(), opt, Dist())
    before = model.netG.spynet.weight.detach().clone()
    for step in range(2):
        model.train_step([batch()], step)
    assert torch.equal(model.netG.spynet.weight, before)
    model.train_step([batch()], 2)
    assert not torch.equal(model.netG.spynet.weight, before)
    rates = {group["lr_mul"]: group["lr"] for group in model.optimizer.param_groups}
    assert rates[0.125] == pytest.approx(0.125 * rates[1.0])


def test_clipping_bounds_the_gradient():
    opt = TrainOpt(G_optimizer_clipgrad=1e-3, total_iter=10)
    model = ModelVRT(TinyNet(), opt, Dist())
    values = model.train_step([batch(1000.0)], 0)
    assert values["grad_norm"] > 1e-3
    norm = torch.stack([parameter.grad.norm() for parameter in model.netG.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_accumulated_batches_equal_one_batch_of_them_all():
    small, large = batch(1.0), batch(3.0)
    together = {key: torch.cat((small[key], large[key])) for key in small}
    opt = TrainOpt(total_iter=10)
    one, other = ModelVRT(TinyNet(), opt, Dist()), ModelVRT(TinyNet(), opt, Dist())
    values = [one.train_step([small, large], 0), other.train_step([together], 0)]
    assert values[0]["G_loss"] == pytest.approx(values[1]["G_loss"])
    assert values[0]["grad_norm"] == pytest.approx(values[1]["grad_norm"])
    for a, b in zip(one.netG.parameters(), other.netG.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights():
    model = ModelVRT(TinyNet(), TrainOpt(total_iter=10), Dist())
    before = model.netG.body.weight.detach().clone()
    with pytest.raises(FloatingPointError, match="step 3: loss nan.*clip_a"):
        model.train_step([{**batch(float("nan")), "key": ["clip_a/000001"]}], 3)
    assert torch.equal(model.netG.body.weight, before)


def test_restore_uses_the_average_and_leaves_no_graph():
    model = ModelVRT(TinyNet(), TrainOpt(E_decay=0.5, total_iter=10), Dist())
    x = torch.rand(1, 2, 4, 4, 4)
    nn.init.zeros_(model.netG.body.weight)
    out = model.restore(x)
    assert not out.requires_grad
    assert torch.equal(out, model.netE(x).detach())
    assert not torch.equal(out, model.netG(x).detach())
