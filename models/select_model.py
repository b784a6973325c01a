"""Builds the model from options, for training and testing."""

from models.model_vrt import ModelVRT
from models.select_network import define_G
from options.schema import Opt
from utils.utils_dist import Dist

MODELS = {"vrt": ModelVRT}


def define_Model(opt: Opt, dist: Dist) -> ModelVRT:
    """Build the network of `opt.netG`, wrapped in the model that trains and runs it on `dist.device`."""
    return MODELS[opt.model](define_G(opt.netG, opt.train.manual_seed), opt.train, dist)
