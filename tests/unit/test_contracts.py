"""Every entry of every registry keeps to the contract of its kind, and the options know it by the same name."""

import pytest
from contracts import ALLOWED, CHECKS, REGISTRIES, check

from data.select_dataset import DATASETS
from options.schema_data import DATASET_TYPES
from options.schema_train import OF_TWO_FRAMES
from utils.utils_metric import TEMPORAL_METRICS


@pytest.mark.parametrize("kind", ALLOWED)
def test_the_options_allow_what_is_registered(kind):
    assert REGISTRIES[kind].keys() == ALLOWED[kind]


def test_the_options_know_every_data_set_and_every_metric_of_two_frames():
    assert DATASET_TYPES.keys() == DATASETS.keys()
    assert TEMPORAL_METRICS.keys() == OF_TWO_FRAMES


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CHECKS for name in REGISTRIES[kind]])
def test_every_entry_keeps_to_the_contract(kind, name, shared_set):
    check(kind, name, shared_set)
