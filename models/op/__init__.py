"""Operators, one function each, with a backend per device."""

from models.op.deform_conv import deform_conv2d

__all__ = ["deform_conv2d"]
