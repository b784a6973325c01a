"""Whole runs on several training sets: resumed to the last bit, and the same in several processes."""

import json

import pytest
from tiny_set import options
from training_run import GUIDE, MOMENT, Training, assert_same, finish, make_blurred_set

LOADING = {"num_frame": 1, "gt_size": 24, "dataloader_batch_size": 2, "dataloader_num_workers": 1}
TRAIN = {
    "total_iter": 8,
    "E_decay": 0.9,
    "G_optimizer_lr": 1e-3,
    "G_scheduler_periods": [100],
    "accumulate": 2,
    "checkpoint_print": 1,
    "checkpoint_save": 4,
    "manual_seed": 3,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Sets with two and with three RGB pixels per spike pixel."""
    return [make_blurred_set(tmp_path_factory.mktemp(f"ratio{ratio}"), ratio=ratio) for ratio in (2, 3)]


@pytest.mark.slow
def test_a_run_on_three_sets_resumes_to_the_last_bit_and_is_the_same_in_two_processes(roots, tmp_path):
    two, three = roots
    blocks = [
        options(two, weight=2.0, **MOMENT, **LOADING),
        options(three, **MOMENT, **LOADING),
        options(two, spikes=False, **LOADING),
    ]
    train = [block.model_dump(mode="json") for block in blocks]
    changes = {"datasets": {"train": train}, "netG": GUIDE, "train": TRAIN}
    straight, stopped, pair = (Training(tmp_path / name, two, **changes) for name in ("straight", "stopped", "pair"))
    processes = straight.start(), stopped.start("train.total_iter=4"), *pair.start_as_a_platform_does(2)
    printed = [finish(process) for process in processes]
    assert "datasets.train.2 (tiny): 10 samples, without spikes, 25.0 % of batches" in printed[0]

    assert "resumed from step 4" in stopped.run()
    for kind in ("G", "E", "state"):
        files = [run.weights(f"8_{kind}.pth") for run in (straight, stopped)]
        for content in files:
            for key in ("record", "options_hash", "sha256"):  # name the run's folder
                content.pop(key, None)
        assert_same(*files)
    curves = [[line["G_loss"] for line in run.lines("train")] for run in (straight, stopped, pair)]
    assert curves[0] == curves[1] == pytest.approx(curves[2], abs=1e-5)
    assert len(set(curves[0])) == 8

    written = json.loads((straight.run_dir / "options.json").read_text())
    assert [block["weight"] for block in written["datasets"]["train"]] == [2.0, 1.0, 1.0]
