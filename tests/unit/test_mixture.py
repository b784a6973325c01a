"""Several training sets in one training: which of them each batch comes from, and what a network gets of them."""

import copy
import itertools
import json
import re
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from test_loader import same
from tiny_set import make_set, options
from trainee import same_weights

from data import shared_memory
from data.check import open_test_set, open_train_sets
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.lmdb_store import lmdb_path
from data.loader import train_batches
from data.mixture import Mixture, WithoutSpikes
from data.prepare import lmdb_writer
from data.prepare.lmdb_sources import PngFiles
from data.restoration_key import inputs_of
from models.model_vrt import ModelVRT, network_input
from models.select_network import define_G
from options.schema import DatasetsOpt, Opt
from options.schema_data import ROUND
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb
from utils.utils_rgbspike import tensors_of

CPU = torch.device("cpu")
SPIKE = {"representation": "moment", "planes": 5, "edge": "mirror"}
MOMENT = {"spike": SPIKE, "spike_channels": 7}


class Toy:
    """Samples that show their set, their index and their first random number."""

    def __init__(self, letter, count, shuffle=True):
        self.letter, self.count, self.shuffle = letter, count, shuffle

    def __len__(self):
        return self.count

    def sample(self, index, rng):
        return {"lq": torch.tensor([index, rng.random()]), "key": f"{self.letter}/{index}"}

    def name(self, index, rng):
        return f"set {self.letter} sample {index} {rng.random():.3f}"


def mixture(weights=(2, 1, 1.5)):
    return Mixture([Toy("a", 7), Toy("b", 5), Toy("c", 40)], weights)


def batches(start=0, total=60, batch_size=4, source=None, **more):
    arguments = {"seed": 3, "start_step": start, "total_steps": total, "batch_size": batch_size} | more
    return list(train_batches(source or mixture(), **arguments))


def drawn(source, seed, numbers):
    return [source.of_batch(number, seed)[0].letter for number in numbers]


# Which set


@pytest.mark.parametrize(
    ("weights", "shares"), [((3, 1, 0.5), (667, 222, 111)), ((1, 1, 1), (334, 333, 333)), ((997, 1, 1), (998, 1, 1))]
)
def test_every_round_has_each_set_as_often_as_its_weight_says(weights, shares):
    source, rounds = mixture(weights), []
    for first in range(0, 3 * ROUND, ROUND):
        rounds.append(drawn(source, 5, range(first, first + ROUND)))
        counts = Counter(rounds[-1])
        assert tuple(counts[letter] for letter in "abc") == shares
    assert len(set(map(tuple, rounds))) == 3
    assert drawn(source, 6, range(ROUND)) != rounds[0]


def test_a_few_batches_are_mixed_too():
    """Not first all of one set: in any hundred batches the shares are about those of the weights."""
    letters = drawn(mixture((1, 1, 2)), 0, range(2 * ROUND))
    for first in range(0, 2 * ROUND, 100):
        assert 30 <= letters[first : first + 100].count("c") <= 70


def test_each_set_goes_through_epochs_of_its_own():
    seen = {letter: [] for letter in "abc"}
    for batch in batches(total=1200):
        assert len({key[0] for key in batch["key"]}) == 1, "a batch comes from one set"
        seen[batch["key"][0][0]] += batch["key"]
    for letter, count in (("a", 7), ("b", 5), ("c", 40)):
        epochs = [seen[letter][at : at + count] for at in range(0, len(seen[letter]) // count * count, count)]
        assert len(epochs) > 20
        assert all(len(set(epoch)) == count for epoch in epochs)
        assert len(set(map(tuple, epochs))) > 20


def test_no_draw_is_repeated_in_any_set():
    draws = [float(draw) for batch in batches(total=100) for draw in batch["lq"][:, 1]]
    assert len(set(draws)) == 400


def test_one_set_alone_comes_in_the_order_that_it_always_had():
    """Older runs resume: epoch e is the permutation of (seed, e, 1), each sample drawn from (seed, position)."""
    toy = Toy("a", 7)
    found = batches(total=9, source=toy)
    order = [f"a/{i}" for epoch in range(6) for i in np.random.default_rng([3, epoch, 1]).permutation(7)]
    assert [key for batch in found for key in batch["key"]] == order[:36]
    draws = [draw for batch in found for draw in batch["lq"][:, 1].tolist()]
    assert draws == pytest.approx([np.random.default_rng([3, at]).random() for at in range(36)])
    assert same(found, batches(total=9, source=Mixture([toy], [0.3])))
    plain = batches(total=2, source=Mixture([Toy("a", 7, shuffle=False)]))
    assert plain[1]["key"] == ["a/4", "a/5", "a/6", "a/0"]


@pytest.mark.parametrize("more", [{"num_workers": 1, "prefetch_factor": 3}, {"num_workers": 2}])
def test_workers_do_not_change_the_batches(more):
    assert same(batches(total=20, **more), batches(total=20))


def test_a_resumed_run_repeats_nothing_and_skips_nothing():
    assert same(batches(total=20) + batches(start=20), batches())
    assert same(batches(start=7, total=11, accumulate=3), batches(total=33)[21:])
    late = batches(start=2 * ROUND + 17, total=2 * ROUND + 20)
    assert same(late, batches(start=2 * ROUND, total=2 * ROUND + 20)[17:])


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_draw_the_same_set_and_share_its_batch(world_size):
    parts = [batches(rank=rank, world_size=world_size, accumulate=2, total=30) for rank in range(world_size)]
    joined = []
    for step in zip(*parts, strict=True):
        assert len({key[0] for part in step for key in part["key"]}) == 1
        keys = list(itertools.chain(*(part["key"] for part in step)))
        joined.append({"lq": torch.cat([part["lq"] for part in step]), "key": keys})
    assert same(joined, batches(total=30, accumulate=2))


def test_shared_memory_must_hold_the_batches_of_the_largest_set(monkeypatch):
    class Large(Toy):
        def sample(self, index, rng):
            return super().sample(index, rng) | {"spike": torch.zeros(9000)}

    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 4 * 9000.0)
    more = {"num_workers": 1, "prefetch_factor": 2}
    batches(source=Mixture([Toy("a", 7)]), **more)
    source = Mixture([Toy("a", 7), Large("b", 7)], (9, 1))
    assert drawn(source, 3, [0]) == ["a"]
    with pytest.raises(UserError, match="/dev/shm: .* are free, but the batches of the data workers need"):
        batches(source=source, **more)


# What a network gets


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Sets by the number of RGB pixels per spike pixel; their blurred frames are blurred."""
    made = {ratio: make_set(tmp_path_factory.mktemp(f"ratio{ratio}"), ratio=ratio) for ratio in (2, 3)}
    for path in itertools.chain(*((root / "lq").glob("*/*.png") for root in made.values())):
        write_rgb(path, cv2.blur(read_rgb(path), (1, 5)))
    return made


REPRESENTATIONS = [
    {"spike": {"representation": "tfp", "window": 9}},
    {"spike": {"representation": "tfi"}},
    {"spike": {"representation": "bins"}, "spike_channels": 3},
    {"spike": {"representation": "isi"}, "spike_channels": 2},
    {"spike": {"representation": "raw_window", "window": 9}, "spike_channels": 9},
    MOMENT,
    MOMENT | {"spike": SPIKE | {"gain": "manifest"}},
]


@pytest.mark.parametrize("changes", REPRESENTATIONS, ids=lambda changes: changes["spike"]["representation"])
def test_a_set_without_spikes_shows_what_dropped_spikes_show(roots, changes):
    spiky = VideoTrainDatasetRGBSpike(options(roots[2], **changes))
    dropped = VideoTrainDatasetRGBSpike(options(roots[2], augment={"drop_spikes": 1.0}, **changes))
    plain = WithoutSpikes(VideoTrainDatasetRGBSpike(options(roots[2], spikes=False)), spiky)
    assert len(plain) == len(spiky)
    one, other = (source.sample(3, np.random.default_rng(4)) for source in (plain, dropped))
    assert {name: value.dtype for name, value in one.items() if name != "key"} == {
        name: value.dtype for name, value in other.items() if name != "key"
    }
    seen = [
        tensors_of(network_input({name: value[None] for name, value in sample.items() if name != "key"}), CPU)
        for sample in (one, other)
    ]
    assert torch.equal(seen[0][1], seen[1][1])
    assert not seen[0][1].any()
    assert seen[0][0].shape == seen[1][0].shape
    assert torch.equal(one["lq"], VideoTrainDatasetRGBSpike(plain.source.opt).sample(3, np.random.default_rng(4))["lq"])


def test_beside_sensors_of_linear_light_dropped_spikes_are_linear_too(own_set):
    path = own_set / "spikes/manifest.json"
    path.write_text(path.read_text().replace('"srgb"', '"linear"'))
    spiky = VideoTrainDatasetRGBSpike(options(own_set, **MOMENT))
    plain = WithoutSpikes(VideoTrainDatasetRGBSpike(options(own_set, spikes=False)), spiky)
    assert bool(plain.sample(0, np.random.default_rng(0))["is_linear"])


def three_sets(roots, **first):
    """Options of a training of the guide: ratio 2, ratio 3 and no spikes."""
    loading = {"num_frame": 1, "gt_size": 24, "dataloader_batch_size": 2, "dataloader_num_workers": 0}
    blocks = [
        options(roots[2], name="two", weight=2.0, **MOMENT, **loading | first),
        options(roots[3], name="three", augment={"pattern": 0.1}, **MOMENT, **loading),
        options(roots[2], spikes=False, name="plain", **loading),
    ]
    tree = {
        "task": "mixed",
        "datasets": {"train": [block.model_dump(mode="json") for block in blocks]},
        "netG": {"net_type": "guide", "guide": {"width": 4, "blocks": [1, 1]}},
        "train": {"total_iter": 12, "E_decay": 0.9, "G_optimizer_lr": 1e-3, "manual_seed": 2},
    }
    return Opt.model_validate(json.loads(json.dumps(tree)))


def test_the_guide_trains_on_two_ratios_and_none_and_resumes_to_the_last_bit(roots, heard):
    opt = three_sets(roots)
    sets = open_train_sets(opt.datasets)
    assert [message for message in heard.messages if message.startswith("datasets.")] == [
        "datasets.train.0 (two): 10 samples, 50.0 % of batches",
        "datasets.train.1 (three): 10 samples, 25.0 % of batches",
        "datasets.train.2 (plain): 10 samples, without spikes, 25.0 % of batches",
    ]
    assert len(sets) == 30

    def trained(model, start, stop):
        arguments = {"seed": 2, "start_step": start, "total_steps": stop, "batch_size": 2, "accumulate": 2}
        found = train_batches(sets, **arguments)
        shapes, losses = set(), []
        for step in range(start, stop):
            pair = [next(found) for _ in range(2)]
            shapes |= {(tuple(batch["spike"].shape[-2:]), bool(batch["spike"].any())) for batch in pair}
            losses.append(model.train_step(pair, step)["G_loss"])
        return shapes, losses

    straight, first, second = (ModelVRT(define_G(opt.netG, 1), opt.train, Dist()) for _ in range(3))
    shapes, losses = trained(straight, 0, 12)
    assert shapes == {((12, 12), True), ((8, 8), True), ((12, 12), False)}
    _, before = trained(first, 0, 5)
    second.load_state_dicts(copy.deepcopy(first.state_dicts()))
    _, after = trained(second, 5, 12)
    assert before + after == losses
    assert len(set(losses)) == 12
    assert same_weights(straight.netG, second.netG)
    assert same_weights(straight.netE, second.netE)
    assert straight.netG.conv_last.weight.any()


def test_a_test_set_without_spikes_is_restored_as_training_showed_it(roots, heard):
    opt = three_sets(roots)
    test = options(roots[3], "Test", spikes=False, name="bare")
    opt = opt.model_copy(update={"datasets": opt.datasets.model_copy(update={"test": test})})
    unread = opt.datasets.model_copy(update={"test": test.model_copy(update={"dataroot_spike": "unread"})})
    assert inputs_of(opt.model_copy(update={"datasets": unread}))["datasets.test.dataroot_spike"] is None
    clip = open_test_set(opt.datasets)[0]
    assert [message for message in heard.messages if "zeros" in message] == [
        "datasets.test (bare): has no spikes; planes of zeros stand for them, as in training"
    ]
    assert not clip.has_spike
    rgb, planes = tensors_of(clip.network_input(0, 2), CPU)
    assert torch.equal(rgb, clip.lq(0, 2))
    assert planes.shape[:2] == (2, 7)
    assert not planes.any()
    net = define_G(opt.netG, 1)
    torch.nn.init.normal_(net.conv_last.weight)
    ratio = rgb.shape[-1] // 3
    as_trained = torch.zeros(2, 7, rgb.shape[-2] // 3, ratio)
    assert torch.allclose(net(rgb[None], planes[None]), net(rgb[None], as_trained[None]), atol=1e-6)
    assert clip.references(0).keys() == {"lq_"}


def test_a_test_set_without_spikes_is_linear_light_where_training_is(own_set):
    path = own_set / "spikes/manifest.json"
    path.write_text(path.read_text().replace('"srgb"', '"linear"'))
    train, test = options(own_set, augment={"drop_spikes": 0.1}, **MOMENT), options(own_set, "Test", spikes=False)
    clip = open_test_set(DatasetsOpt(train=train, test=test))[0]
    assert clip.network_input(0, 1).is_linear


def test_what_is_said_of_a_sample_names_its_set(roots, tmp_path):
    root = shutil.copytree(roots[2], tmp_path / "set")
    opt = three_sets(roots | {2: root})
    sets = open_train_sets(opt.datasets)
    keys = {key for batch in batches(total=12, batch_size=2, source=sets) for key in batch["key"]}
    labels = {key.partition(": ")[0] for key in keys}
    assert labels == {"datasets.train.0 (two)", "datasets.train.1 (three)", "datasets.train.2 (plain)"}
    assert all(re.search(r"\): clip_[ab]/0000\d\d$", key) for key in keys)
    assert sets.sets[0].name(0, np.random.default_rng(0)).startswith("datasets.train.0 (two): clip clip_a frames ")
    shutil.rmtree(root / "gt")
    with pytest.raises(UserError, match=r"^datasets\.train\.0 \(two\): clip clip_a frame"):
        sets.sets[0].sample(0, np.random.default_rng(0))


def test_a_set_in_lmdb_beside_one_on_disk_gives_the_same_batches(roots, tmp_path):
    root = shutil.copytree(roots[2], tmp_path / "set")
    sources = [PngFiles(root / kind, 0) for kind in ("lq", "gt")]
    lmdb_writer.write_lmdbs([(source, lmdb_path(source.root)) for source in sources], workers=1)
    stored = {"dataroot_lq": f"{root}/lq.lmdb", "dataroot_gt": f"{root}/gt.lmdb", "io_backend": {"type": "lmdb"}}
    found = [
        batches(total=9, batch_size=2, num_workers=1, source=open_train_sets(three_sets(roots, **more).datasets))
        for more in ({}, stored)
    ]
    for one, other in zip(*found, strict=True):
        assert one["key"] == other["key"]
        assert all(torch.equal(one[name], other[name]) for name in ("lq", "gt", "spike"))


def test_what_is_wrong_with_a_set_is_said_with_its_block(roots, tmp_path):
    opt = three_sets(roots)
    blocks = list(opt.datasets.train)
    blocks[1] = blocks[1].model_copy(update={"dataroot_lq": str(tmp_path / "gone")})
    with pytest.raises(UserError, match=r"^datasets\.train\.1: three: dataroot_lq: .*gone is not a folder") as caught:
        open_train_sets(opt.datasets.model_copy(update={"train": tuple(blocks)}))
    assert "\n" not in str(caught.value)
    large = tuple(block.model_copy(update={"gt_size": 32}) for block in opt.datasets.train)
    with pytest.raises(UserError, match=r"^datasets\.train\.1: gt_size: 32 does not fit clip clip_a, .* multiple of 3"):
        open_train_sets(opt.datasets.model_copy(update={"train": large}))
