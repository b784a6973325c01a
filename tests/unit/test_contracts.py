"""Every entry of every registry keeps to the contract of its kind, and the options know it by the same name."""

import pytest
from contracts import (
    ALLOWED,
    REGISTRIES,
    check_dataset,
    check_flow,
    check_fusion,
    check_loss,
    check_metric,
    check_representation,
)

from data.select_dataset import DATASETS
from data.spike.planes import REPRESENTATIONS
from models.flow import FLOWS
from models.fusion import FUSIONS
from models.loss import LOSSES
from options.schema_data import DATASET_TYPES
from options.schema_train import OF_TWO_FRAMES
from utils.utils_metric import METRICS, TEMPORAL_METRICS


@pytest.mark.parametrize("kind", ALLOWED)
def test_the_options_allow_what_is_registered(kind):
    registered = REGISTRIES[kind].keys() | (TEMPORAL_METRICS.keys() if kind == "metric" else set())
    assert registered == ALLOWED[kind]


def test_the_options_know_every_data_set_and_every_metric_of_two_frames():
    assert DATASET_TYPES.keys() == DATASETS.keys()
    assert TEMPORAL_METRICS.keys() == OF_TWO_FRAMES


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions(name):
    check_fusion(name)


@pytest.mark.parametrize("name", FLOWS)
def test_flows(name):
    check_flow(name)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    check_loss(name)


@pytest.mark.parametrize("name", [*METRICS, *TEMPORAL_METRICS])
def test_metrics(name):
    check_metric(name)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_representations(name):
    check_representation(name)


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets(name, shared_set):
    check_dataset(name, shared_set)
