"""Learning rate, parameter groups, moving average, freezing, clipping."""

import copy
import json

import pytest
import torch
from torch import nn

from models import ema, optim
from models.model_vrt import ModelVRT
from models.optim import cosine_lr, learning_rate, multistep_lr
from options.schema import Opt, TrainOpt
from utils import utils_cli, utils_dist, utils_option
from utils.checkpoint.optimizer_state import load_named_state, named_state
from utils.utils_dist import Dist
from utils.utils_error import UserError


class TinyNet(nn.Module):
    """Stands in for VRT: (B, T, C, h, w), or frames and spikes, -> (B, T, 3, h, w)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.spynet = nn.Linear(4, 3)
        self.body = nn.Linear(3, 3)

    def forward(self, x, *spike):
        return self.body(self.spynet(torch.cat((x, *spike), dim=2).movedim(2, -1))).movedim(-1, 2)


def batch(scale=1.0):
    torch.manual_seed(1)
    return {
        "lq": torch.rand(1, 2, 3, 4, 4),
        "spike": torch.rand(1, 2, 1, 4, 4),
        "gt": scale * torch.rand(1, 2, 3, 4, 4),
    }


def test_counts_and_what_they_mean_train_as_intensities_do():
    counts = torch.arange(32, dtype=torch.uint8).view(1, 2, 1, 4, 4)
    scale = torch.tensor([0.01, 0.03]).view(1, 2, 1)
    counted, meant = ({"spike": counts, "spike_scale": scale}, {"spike": counts * scale[..., None, None]})
    values = []
    for spikes in (counted, meant):
        model = ModelVRT(TinyNet(), TrainOpt(total_iter=10), Dist())
        values.append([model.train_step([batch() | spikes], step) for step in range(2)])
    assert values[0] == values[1]
    assert values[0][0] != ModelVRT(TinyNet(), TrainOpt(total_iter=10), Dist()).train_step([batch()], 0)


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


def rates(**options):
    opt = TrainOpt(G_optimizer_lr=1.0, **options)
    return [learning_rate(update, opt) for update in range(1, opt.total_iter + 1)]


def test_cosine_without_restarts_equals_torch_and_never_rises():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.1)
    found = rates(G_scheduler_type="CosineAnnealingLR", total_iter=50, G_scheduler_eta_min=0.1, G_scheduler_periods=10)
    for rate in found:
        optimizer.step()
        schedule.step()
        assert rate == pytest.approx(schedule.get_last_lr()[0])
    assert found[-1] == pytest.approx(0.1)
    opt = TrainOpt(G_scheduler_type="CosineAnnealingLR", total_iter=50)
    assert learning_rate(51, opt) == learning_rate(50, opt)  # a run that is longer than its options said


def test_each_kind_of_schedule_is_its_own():
    cycles = rates(total_iter=30, G_scheduler_periods=10, G_scheduler_eta_min=0.0)
    assert cycles[10] > cycles[8]
    assert cycles == [cosine_lr(update, 1.0, 0.0, (10,), 1, 30) for update in range(1, 31)]
    steps = rates(G_scheduler_type="MultiStepLR", G_scheduler_milestones=(3, 5), total_iter=6)
    assert steps == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("kind", ["CosineAnnealingWarmRestarts", "CosineAnnealingLR", "MultiStepLR"])
def test_warm_up_rises_in_equal_parts_and_its_first_step_is_not_zero(kind):
    more = {"G_scheduler_type": kind, "G_scheduler_milestones": (30,), "total_iter": 40}
    plain, none, warm = (rates(warmup_iter=count, **more) for count in (0, -1, 4))
    assert none == plain
    parts = [a / b for a, b in zip(warm, plain, strict=True)]
    assert parts == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 37)


def names(optimizer):
    """Names of the parameters and the options of each group."""
    groups = optimizer.param_groups
    return [(group["param_names"], group["lr_mul"], group["weight_decay"]) for group in groups]


def test_groups_without_new_options_are_those_of_fix_keys():
    net = TinyNet()
    both = optim.make_optimizer(net, TrainOpt(fix_keys=("spynet",), fix_lr_mul=0.125, G_optimizer_lr=0.5))
    spynet, body = (["spynet.weight", "spynet.bias"], 0.125, 0.0), (["body.weight", "body.bias"], 1.0, 0.0)
    assert names(both) == [body, spynet]
    assert [group["lr"] for group in both.param_groups] == [0.5, 0.0625]
    assert names(optim.make_optimizer(net, TrainOpt(fix_keys=("net",), fix_lr_mul=0.125))) == [body, spynet]
    alone = optim.make_optimizer(net, TrainOpt())
    assert [group[0] for group in names(alone)] == [[*spynet[0], *body[0]]]


def test_the_first_group_that_fits_counts_and_fix_keys_come_on_top():
    groups = ({"keys": ["bias"], "weight_decay": 0.0}, {"keys": ["body", "bias"], "lr_mul": 3.0})
    opt = TrainOpt(G_param_groups=groups, fix_keys=("spynet",), fix_lr_mul=0.5, G_optimizer_wd=0.1)
    optimizer = optim.make_optimizer(TinyNet(), opt)
    assert names(optimizer) == [
        (["spynet.weight"], 0.5, 0.1),
        (["body.bias"], 1.0, 0.0),
        (["spynet.bias"], 0.5, 0.0),
        (["body.weight"], 3.0, 0.1),
    ]
    optim.set_lr(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.2, 0.1, 0.6])


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_options_of_the_optimizer_reach_it(kind):
    opt = TrainOpt(G_optimizer_type=kind, G_optimizer_betas=(0.8, 0.9), G_optimizer_wd=0.1)
    optimizer = optim.make_optimizer(TinyNet(), opt)
    assert type(optimizer).__name__.lower() == kind
    assert (optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["weight_decay"]) == ((0.8, 0.9), 0.1)


def test_a_name_that_fits_nothing_is_refused_with_near_ones():
    groups = ({"keys": ["body"]}, {"keys": ["bias", "spinet.weight"]})
    with pytest.raises(UserError, match=r"G_param_groups\[1\].*'spinet.weight'.*near: spynet.weight"):
        optim.make_optimizer(TinyNet(), TrainOpt(G_param_groups=groups))
    with pytest.raises(UserError, match=r"train.freeze: 'spinet\.\*'.*near: spynet"):
        optim.freeze(TinyNet(), ("body.*", "spinet.*"))
    with pytest.raises(UserError, match="train.freeze: 'spynet'"):  # a part of a name is no pattern of it
        optim.freeze(TinyNet(), ("spynet",))
    with pytest.raises(UserError, match="leaves no parameter"):
        optim.freeze(TinyNet(), ("*",))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"spike_limit": 1.0}, ["train.spike_limit", "found 1.0", "greater than 1"]),
        ({"G_fft_weight": -0.1}, ["train.G_fft_weight", "found -0.1"]),
        ({"checkpoint_minutes": 0.0}, ["train.checkpoint_minutes", "found 0.0"]),
        ({"nonfinite_limit": 0}, ["train.nonfinite_limit", "found 0"]),
        ({"G_param_groups": [{"lr_mul": 2.0}]}, ["train.G_param_groups.0.keys", "missing"]),
        ({"G_param_groups": [{"keys": []}]}, ["train.G_param_groups.0.keys"]),
        ({"G_param_groups": [{"keys": [""]}]}, ["train.G_param_groups.0.keys[0]"]),  # would be in every name
        ({"G_param_groups": [{"keys": ["a"], "lrmul": 1.0}]}, ["G_param_groups.0.lrmul", "G_param_groups.0.lr_mul"]),
        ({"G_scheduler_type": "CosineAnnealing"}, ["train.G_scheduler_type", "CosineAnnealingLR"]),
    ],
)
def test_wrong_options_are_named(tmp_path, train, words):
    (tmp_path / "mine.json").write_text(json.dumps({"task": "mine", "train": train}))
    with pytest.raises(UserError) as error:
        utils_option.load(tmp_path / "mine.json", Opt)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "near"), [("bodi", "body"), ("spynet.wieght", r"spynet\.weight"), ("spinet", "spynet")]
)
def test_a_misspelt_fix_key_is_refused(wrong, near):
    with pytest.raises(UserError, match=f"train.fix_keys: '{wrong}' is in no parameter's name, near: {near}"):
        optim.make_optimizer(TinyNet(), TrainOpt(fix_keys=("spynet", wrong)))


def test_kairs_own_fix_keys_may_fit_nothing(caplog):
    """KAIR's files name the alignment also for networks without one."""
    optim.make_optimizer(TinyNet(), TrainOpt(fix_keys=("spynet", "deform")))
    assert [record.getMessage() for record in caplog.records] == [
        "train.fix_keys: 'deform' is in no parameter's name, so it has no effect"
    ]


def test_frozen_parameters_are_in_no_group_and_holding_does_not_wake_them():
    net = TinyNet()
    optim.freeze(net, ("spynet.w*",))
    optimizer = optim.make_optimizer(net, TrainOpt(fix_keys=("spynet",)))
    assert [group[0] for group in names(optimizer)] == [["body.weight", "body.bias"], ["spynet.bias"]]
    for held in (True, False):
        optim.freeze_fix_keys(optimizer, held)
        learning = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        assert learning == ["body.weight", "body.bias"] if held else ["spynet.bias", "body.weight", "body.bias"]


def trained(opt, steps=2):
    """A network after some steps, and its optimizer."""
    net = TinyNet()
    optim.freeze(net, opt.freeze)
    optimizer = optim.make_optimizer(net, opt)
    for step in range(steps):
        optimizer.zero_grad()
        net(torch.full((1, 1, 4, 2, 2), 1.0 + step)).square().mean().backward()
        optimizer.step()
    return net, optimizer


def moments(net, optimizer):
    """Adam's running means by the parameters' names."""
    states = ((name, optimizer.state.get(parameter)) for name, parameter in net.named_parameters())
    return {name: state["exp_avg"] for name, state in states if state}


OLD = TrainOpt(fix_keys=("spynet",), fix_lr_mul=0.5, G_optimizer_wd=0.1)


@pytest.mark.parametrize("named", [True, False])
def test_moments_are_taken_over_and_the_options_of_today_stay(named):
    net, optimizer = trained(OLD)
    saved = named_state(optimizer, net)
    if not named:
        del saved["names"]
    new = TrainOpt(fix_keys=("spynet",), fix_lr_mul=0.25, G_optimizer_wd=0.2, G_optimizer_betas=(0.5, 0.6))
    other, mine = trained(new, steps=0)
    before = [{key: value for key, value in group.items() if key != "params"} for group in mine.param_groups]
    load_named_state(mine, other, saved)
    after = [{key: value for key, value in group.items() if key != "params"} for group in mine.param_groups]
    assert after == before
    found, expected = moments(other, mine), moments(net, optimizer)
    assert found.keys() == expected.keys() == dict(net.named_parameters()).keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert mine.state_dict()["state"][0]["step"] == 2


def test_moments_follow_the_names_into_other_groups():
    net, optimizer = trained(OLD)
    new = TrainOpt(G_param_groups=({"keys": ["bias"]},), freeze=("body.weight",))
    other, mine = trained(new, steps=0)
    load_named_state(mine, other, named_state(optimizer, net))
    found, expected = moments(other, mine), moments(net, optimizer)
    assert set(found) == {"spynet.weight", "spynet.bias", "body.bias"}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    back, again = trained(OLD, steps=0)  # what was frozen starts afresh
    load_named_state(again, back, named_state(mine, other))
    assert set(moments(back, again)) == set(found)


def test_moments_of_other_groups_or_shapes_are_refused():
    saved = trained(OLD)[1].state_dict()
    net, optimizer = trained(TrainOpt(), steps=0)
    with pytest.raises(UserError, match=r"groups have \[2, 2\] parameters, expected \[4\]"):
        load_named_state(optimizer, net, saved)
    saved["state"][0]["exp_avg"] = torch.zeros(7)
    net, optimizer = trained(OLD, steps=0)
    with pytest.raises(UserError, match=r"exp_avg of body.weight has shape \(7,\), expected \(3, 3\)"):
        load_named_state(optimizer, net, saved)


def test_a_young_average_follows_the_weights_and_an_old_one_its_decay():
    assert [ema.decay_at(n, 0.999) for n in (0, 1, 90)] == pytest.approx([0.1, 2 / 11, 0.91])
    assert ema.decay_at(10**6, 0.999) == 0.999
    assert ema.decay_at(0, 0.05) == 0.05
    decays = [ema.decay_at(n, 0.99) for n in range(2000)]
    assert decays == sorted(decays)


def test_the_average_of_a_short_run_is_not_stuck_at_the_first_weights():
    net = nn.Linear(2, 2)
    average = ema.MovingAverage(net, 0.9999)
    nn.init.ones_(net.weight)
    average.update(net)
    assert (average.net.weight - net.weight).abs().max() < 0.2
    assert not any(parameter.requires_grad for parameter in average.net.parameters())
    assert not average.net.training


def test_a_resumed_average_goes_on_exactly_and_a_new_one_starts_at_the_weights():
    torch.manual_seed(0)
    weights = [nn.Linear(2, 2) for _ in range(6)]
    straight, first, second = (ema.MovingAverage(weights[0], 0.9) for _ in range(3))
    for net in weights:
        straight.update(net)
    for net in weights[:3]:
        first.update(net)
    second.net.load_state_dict(first.net.state_dict())
    second.updates = first.updates
    for net in weights[3:]:
        second.update(net)
    assert second.updates == 6
    assert torch.equal(second.net.weight, straight.net.weight)
    straight.restart(weights[0])
    assert straight.updates == 0
    assert torch.equal(straight.net.weight, weights[0].weight)


def test_an_average_from_elsewhere_is_not_wiped_out():
    average, net = ema.MovingAverage(nn.Linear(2, 2), 0.999), nn.Linear(2, 2)
    expected = 0.999 * average.net.weight + 0.001 * net.weight.detach()
    average.skip_warmup()
    average.update(net)
    assert torch.allclose(average.net.weight, expected)


def test_the_average_has_the_newest_buffers():
    net = nn.BatchNorm1d(2)
    average = ema.MovingAverage(net, 0.9)
    net(torch.rand(4, 2))
    average.update(net)
    for name, buffer in net.named_buffers():
        assert torch.equal(average.net.get_buffer(name), buffer), name


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


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_fixed_keys_never_learn_at_a_rate_of_zero(kind):
    opt = TrainOpt(fix_keys=("spynet",), fix_lr_mul=0, total_iter=9, G_optimizer_type=kind, G_optimizer_wd=0.1)
    model = ModelVRT(TinyNet(), opt, Dist())
    before = {name: value.detach().clone() for name, value in model.netG.named_parameters()}
    for step in range(3):
        model.train_step([batch()], step)
    for name, value in model.netG.named_parameters():
        assert torch.equal(value, before[name]) == ("spynet" in name)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_without_the_compilers_wrappers_are_those_of_pytorch(kind):
    nets, optimizers = [], []
    for make in (kind, optim.never_compiled(kind)):
        torch.manual_seed(0)
        nets.append(TinyNet())
        optimizers.append(make(nets[-1].parameters(), lr=0.01, weight_decay=0.1))
    for _ in range(3):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(torch.cat((batch()["lq"], batch()["spike"]), dim=2)).square().mean().backward()
            optimizer.step()
    optimizers[1].load_state_dict(optimizers[1].state_dict())
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for index, moments in states[0]["state"].items():
        assert all(torch.equal(moments[key], states[1]["state"][index][key]) for key in moments)
    assert all(torch.equal(*pair) for pair in zip(*(net.parameters() for net in nets), strict=True))


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


def test_a_loss_that_is_not_finite_is_left_out_and_named(heard):
    model = ModelVRT(TinyNet(), TrainOpt(total_iter=10, E_decay=0.5, nonfinite_limit=2), Dist())
    bad = {**batch(float("nan")), "key": ["clip_a/000001"]}
    model.train_step([batch()], 0)
    before = copy.deepcopy(model.state_dicts())
    assert model.train_step([batch(), bad], 1)["skipped"] == 1
    after = model.state_dicts()
    for kind in ("G", "E"):
        assert all(torch.equal(before[kind][key], after[kind][key]) for key in before[kind])
    assert before["state"]["average_updates"] == after["state"]["average_updates"] == 1
    assert "step 1 skipped: loss nan" in heard.text
    assert "clip_a/000001" in heard.text
    assert not model.guard.exhausted
    model.train_step([bad], 2)
    assert model.guard.exhausted
    values = model.train_step([batch()], 3)
    assert values["skipped"] == 2
    assert not model.guard.exhausted
    assert not torch.equal(before["G"]["body.weight"], model.netG.body.weight)


def test_a_jump_of_the_loss_is_left_out():
    model = ModelVRT(TinyNet(), TrainOpt(total_iter=100, spike_limit=3.0), Dist())
    for step in range(25):
        model.train_step([batch()], step)
    before = model.netG.body.weight.detach().clone()
    assert model.train_step([batch(100.0)], 25)["skipped"] == 1
    assert torch.equal(model.netG.body.weight, before)
    model.train_step([batch()], 26)
    assert not torch.equal(model.netG.body.weight, before)


def test_restore_uses_the_average_and_leaves_no_graph():
    model = ModelVRT(TinyNet(), TrainOpt(E_decay=0.5, total_iter=10), Dist())
    x = torch.rand(1, 2, 4, 4, 4)
    nn.init.zeros_(model.netG.body.weight)
    out = model.restore(x)
    assert not out.requires_grad
    assert torch.equal(out, model.netE(x).detach())
    assert not torch.equal(out, model.netG(x).detach())


# Rank 0 first


def test_a_mistake_that_rank_0_finds_ends_all_processes(monkeypatch, capsys):
    told = []
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: told.append(value) or [value, ""])

    def refuse():
        raise UserError("the folder is in use")

    with pytest.raises(UserError, match="the folder is in use"):
        utils_dist.main_first(Dist(0, 2), refuse)
    assert told == ["the folder is in use"]
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: told)
    with pytest.raises(SystemExit) as end, utils_cli.program():
        utils_dist.main_first(Dist(1, 2), lambda: pytest.fail("rank 1 went on"))
    assert end.value.code == 2
    assert capsys.readouterr().err == ""  # rank 0 says it


def test_others_act_after_rank_0(monkeypatch):
    order = []
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: order.append("told") or [""])
    assert utils_dist.main_first(Dist(0, 2), lambda: order.append("rank 0") or 1) == 1
    assert utils_dist.main_first(Dist(1, 2), lambda: order.append("rank 1") or 2) == 2
    assert order == ["rank 0", "told", "told", "rank 1"]
