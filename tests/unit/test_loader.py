import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from tiny_set import make_set, options

from data import loader, shared_memory
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.loader import DeadWorkerError, StalledError, train_batches
from utils.processes.signals import StoppedError
from utils.processes.thread_count import usable_cores
from utils.utils_error import UserError, counted


class Toy:
    """Seven samples that show their index and their first random number.

    Sample `broken` cannot be read, sample `deadly` ends the process that reads it, sample `endless` never comes.
    """

    def __init__(self, shuffle=True, broken=None, deadly=None, endless=None):
        self.shuffle, self.broken, self.deadly, self.endless = shuffle, broken, deadly, endless

    def __len__(self):
        return 7

    def sample(self, index, rng):
        if index == self.broken:
            raise UserError(f"clip a frame {index:06d}: gone")
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.endless:
            time.sleep(600)
        return {"lq": torch.tensor([index, rng.random()]), "key": f"a/{index}"}

    def name(self, index, rng):
        return f"clip a frame {index:06d} {rng.random():.3f}"


def batches(start=0, total=6, batch_size=4, source=None, **more):
    arguments = {"seed": 3, "start_step": start, "total_steps": total, "batch_size": batch_size} | more
    return list(train_batches(source or Toy(), **arguments))


def same(a, b):
    return len(a) == len(b) and all(
        x["key"] == y["key"] and torch.equal(x["lq"], y["lq"]) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_give_the_batch_of_one_process(world_size):
    parts = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [
        {"lq": torch.cat([p["lq"] for p in step]), "key": list(itertools.chain(*(p["key"] for p in step)))}
        for step in zip(*parts, strict=True)
    ]
    assert same(joined, batches())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_shards_never_overlap_and_are_augmented_each_for_itself(world_size, accumulate):
    """Over two epochs of seven batches: each sample once an epoch in all ranks together, no draw twice."""
    epoch, parts = 7 * 4, []
    for rank in range(world_size):
        more = {"rank": rank, "world_size": world_size, "accumulate": accumulate}
        parts.append(batches(total=14 // accumulate, **more))
    assert {len(batch["key"]) for part in parts for batch in part} == {4 // world_size}
    steps = list(zip(*parts, strict=True))
    keys = [key for step in steps for batch in step for key in batch["key"]]
    draws = [float(draw) for step in steps for batch in step for draw in batch["lq"][:, 1]]
    assert len(set(draws)) == len(keys) == 2 * epoch
    for first in range(0, 2 * epoch, 7):
        assert len(set(keys[first : first + 7])) == 7


def test_more_workers_than_cores_are_said_in_one_line(heard, recwarn):
    count = usable_cores() + 1
    batches(total=1, num_workers=count)
    assert [line for line in heard.messages if "reader processes" in line] == [
        f"{count} reader processes (dataloader_num_workers) share {counted(count - 1, 'core')}"
    ]
    assert not [str(warning.message) for warning in recwarn if "DataLoader" in str(warning.message)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(num_workers):
    assert same(batches(num_workers=num_workers, prefetch_factor=2), batches())


def test_a_resumed_run_repeats_nothing_and_skips_nothing():
    assert same(batches(total=2) + batches(start=2), batches())
    assert same(batches(start=1, total=3, accumulate=2), batches(total=6)[2:])
    assert batches(start=6) == []


def test_every_epoch_shows_each_sample_once_in_an_order_of_its_own():
    keys = list(itertools.chain(*(batch["key"] for batch in batches(total=7))))
    epochs = [keys[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_augmentation_differs_between_epochs_and_seeds():
    draws = [float(x) for batch in batches(total=7) for x in batch["lq"][:, 1]]
    assert len(set(draws)) == 28
    assert not same(batches(seed=4), batches())


def test_without_shuffle_the_order_is_that_of_the_set():
    assert [batch["key"] for batch in batches(total=2, source=Toy(shuffle=False))] == [
        ["a/0", "a/1", "a/2", "a/3"],
        ["a/4", "a/5", "a/6", "a/0"],
    ]


def test_the_global_generators_are_left_alone():
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches(num_workers=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_a_batch_that_cannot_be_divided_is_the_users_mistake():
    with pytest.raises(UserError, match="dataloader_batch_size: 4 samples cannot be divided among 3 processes"):
        train_batches(Toy(), seed=0, start_step=0, total_steps=1, batch_size=4, rank=0, world_size=3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_users_mistake_in_a_sample_stays_one_line(num_workers):
    with pytest.raises(UserError) as caught:
        batches(source=Toy(broken=5), num_workers=num_workers)
    assert str(caught.value) == "clip a frame 000005: gone"


def test_a_data_worker_that_dies_names_its_sample():
    source = Toy(shuffle=False, deadly=6)
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = train_batches(
        source, seed=3, start_step=0, total_steps=3, batch_size=4, rank=1, world_size=2, num_workers=2
    )
    with pytest.raises(DeadWorkerError) as caught:
        list(iterator)
    assert str(caught.value).startswith("data worker ")
    name = source.name(6, np.random.default_rng([3, 6]))
    assert str(caught.value).endswith(f" was ended by SIGKILL (is the memory full?) while reading {name}")
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_the_order_of_an_epoch_is_made_once():
    loader._order.cache_clear()
    batches(total=7)
    assert loader._order.cache_info().misses == 4


# Nothing waits for ever


@pytest.fixture
def quick(monkeypatch):
    """Looks at the workers that follow each other quickly, and few until a run ends."""
    monkeypatch.setattr(loader, "POLL", 0.05)
    monkeypatch.setattr(loader, "GRACE", 0.1)
    monkeypatch.setattr(loader, "CHECKS_TO_WARN", 10)
    monkeypatch.setattr(loader, "CHECKS_TO_END", 20)


BYTES = 4 * 2 * 4  # of a batch of four samples


@pytest.mark.filterwarnings("ignore:'pin_memory'")
@pytest.mark.parametrize(
    ("at_once", "more"),
    [
        (5, {"num_workers": 2, "prefetch_factor": 2}),
        (4, {"num_workers": 1, "prefetch_factor": 2, "accumulate": 2}),
        (3, {"num_workers": 2, "prefetch_factor": 9, "pin_memory": True}),
        (6, {"num_workers": 2, "prefetch_factor": 9}),  # as many as there are
    ],
)
def test_too_little_shared_memory_is_found_before_the_first_batch(monkeypatch, at_once, more):
    free = at_once * BYTES
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: float(free))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # pinning is asked for and cannot be done
    next(train_batches(Toy(), seed=3, start_step=0, total_steps=6, batch_size=4, **more))
    free -= 1
    iterator = train_batches(Toy(), seed=3, start_step=0, total_steps=6, batch_size=4, **more)
    with pytest.raises(UserError) as caught:
        next(iterator)
    text = str(caught.value)
    assert "/dev/shm: " in text
    assert f"({at_once} at once of " in text
    assert f"dataloader_num_workers is {more['num_workers']}, " in text
    assert f"dataloader_prefetch_factor {more['prefetch_factor']}; " in text
    assert "--shm-size=64m" in text
    assert "\n" not in text


def test_all_processes_of_a_machine_share_its_shared_memory(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 8 * 5 * BYTES / 2 - 1)
    more = {"num_workers": 2, "rank": 1, "world_size": 2}
    with pytest.raises(UserError, match="40 at once of .*dataloader_num_workers is 2 in each of 8 processes"):
        batches(**more)


def test_free_shared_memory_is_what_the_system_says(monkeypatch, tmp_path):
    def statvfs(blocks):
        return os.statvfs_result((4096, 4096, blocks, 9, 7, 0, 0, 0, 0, 255))

    monkeypatch.setattr(shared_memory, "PLACE", tmp_path)
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda place: statvfs(16))
    assert shared_memory.free_bytes() == 7 * 4096
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda place: statvfs(0))
    assert shared_memory.free_bytes() == float("inf"), "a tmpfs without a limit"
    monkeypatch.setattr(shared_memory, "PLACE", tmp_path / "none")
    assert shared_memory.free_bytes() == float("inf")


def test_shared_memory_that_ends_in_a_worker_ends_the_run_with_the_same_line(monkeypatch):
    def no_room(samples):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_7_8_9>: No space left on device (28)"
        )

    monkeypatch.setattr(loader, "default_collate", no_room)
    with pytest.raises(UserError, match=r"^/dev/shm: .* MiB of shared memory are free, .*--shm-size=64m"):
        batches(num_workers=1)
    with pytest.raises(RuntimeError):
        batches()


def test_without_room_for_the_workers_themselves_the_line_says_so(monkeypatch):
    def no_room(*more, **given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loader, "DataLoader", no_room)
    with pytest.raises(UserError, match=r"^/dev/shm: .* need some: dataloader_num_workers is 2"):
        batches(num_workers=2)


def test_a_batch_that_never_comes_ends_the_run_with_its_sample(quick, heard):
    source, given = Toy(shuffle=False, endless=2), []
    with pytest.raises(StalledError) as caught:
        given += train_batches(source, seed=3, start_step=0, total_steps=9, batch_size=1, num_workers=2)
    name = source.name(2, np.random.default_rng([3, 2]))
    assert str(caught.value).startswith("no batch arrived and no sample was begun for 1 s: data worker ")
    assert f" reads {name}; is the disk" in str(caught.value)
    assert len(heard.messages) == 1
    assert f" reads {name}; waiting up to" in heard.messages[0]
    assert multiprocessing.active_children() == []


def test_a_batch_that_a_worker_cannot_hand_over_ends_the_run(quick, monkeypatch, capfd):
    monkeypatch.setattr(loader, "default_collate", lambda samples: {"key": lambda: None})
    with pytest.raises(StalledError, match="all 2 data workers are idle; one could not hand over its batch"):
        batches(num_workers=2)
    assert "local object" in capfd.readouterr().err


def test_slow_samples_are_waited_for(quick):
    class Slow(Toy):
        def sample(self, index, rng):
            time.sleep(0.2)
            return super().sample(index, rng)

    assert same(batches(source=Slow(), batch_size=8, total=1, num_workers=1), batches(batch_size=8, total=1))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_request_to_stop_is_heard_while_a_batch_is_waited_for(quick, num_workers):
    asked = iter([False] * 4)
    source = Toy(shuffle=False, endless=3 if num_workers else None)
    stop = {"stop": lambda: next(asked, True), "num_workers": num_workers}
    with pytest.raises(StoppedError):
        list(train_batches(source, seed=3, start_step=0, total_steps=9, batch_size=4, **stop))
    assert multiprocessing.active_children() == []


def test_a_sample_is_named_by_the_clip_and_the_frames_that_it_reads(tmp_path, monkeypatch):
    dataset = VideoTrainDatasetRGBSpike(options(make_set(tmp_path), interval_list=[1, 2], random_reverse=True))
    names = set()
    for seed, index in itertools.product(range(8), range(len(dataset))):
        read = []
        read_many = dataset.lq.read_many

        def watched(clip, frames, *more, read=read, read_many=read_many):
            read.append((clip, frames))
            return read_many(clip, frames, *more)

        with monkeypatch.context() as patch:
            patch.setattr(dataset.lq, "read_many", watched)
            dataset.sample(index, np.random.default_rng(seed))
        ((clip, frames),) = read
        names.add(dataset.name(index, np.random.default_rng(seed)))
        assert dataset.name(index, np.random.default_rng(seed)) == f"clip {clip} frames {' '.join(sorted(frames))}"
    assert len(names) == 8
