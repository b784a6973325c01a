"""Builds the model from options, for training and testing."""

import logging
from pathlib import Path

from models.model_vrt import ModelVRT
from models.select_network import define_G
from options.schema import Opt
from utils.utils_checkpoint import load_weights
from utils.utils_dist import Dist

LOG = logging.getLogger("spikevrt")


def define_Model(opt: Opt, dist: Dist) -> ModelVRT:
    """Build the network of `opt.netG`, wrapped in the model that trains and runs it on `dist.device`."""
    return ModelVRT(define_G(opt.netG, opt.train.manual_seed), opt.train, dist)


def define_restorer(opt: Opt, weights: Path, reason: str, dist: Dist) -> ModelVRT:
    """Build the model for restoring, with all weights from one file.

    No flow file is loaded and no moving average is kept, whatever the options say. `reason` says in the log why this
    .pth or .safetensors file was chosen.

    Raises:
        UserError: the file is no weights file, or does not fit the network.
    """
    net = opt.netG.without_files()
    train = opt.train.model_copy(update={"E_decay": 0.0})
    model = define_Model(opt.model_copy(update={"netG": net, "train": train}), dist)
    LOG.info("weights: %s (%s): %s", weights, reason, load_weights(model.netG, weights))
    return model
