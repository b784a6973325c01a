"""The tiny networks of the tests, as options of netG and as arguments of VRT. No torch: tests of start-up need none."""

import json
from typing import Any


def tiny(stages: int = 8, depth: int = 1, width: int = 4, heads: int = 1, **changes: Any) -> dict[str, Any]:
    """The least network: blocks, channels and heads of every stage, and whatever else a test is about.

    Windows shift in every second block: a test of them takes depth 2.
    """
    least = {
        "img_size": [2, 16, 16],
        "window_size": [2, 4, 4],
        "depths": [depth] * stages,
        "indep_reconsts": [],
        "embed_dims": [width] * stages,
        "num_heads": [heads] * stages,
        "mlp_ratio": 1.0,
        "deformable_groups": 1,
    }
    return least | changes


def overrides(net: dict[str, Any]) -> list[str]:
    """The same as words after --set."""
    return [f"netG.{key}={json.dumps(value)}" for key, value in net.items()]


TINY = tiny(optical_flow="spynet_quarter")  # SpyNet at full size takes two thirds of the time
# What whole runs train: it sees spikes, has heads, groups and a shifted window, and drops paths.
TRAINED = tiny(
    width=8,
    heads=2,
    depths=[2] + [1] * 7,
    in_chans=4,
    img_size=[2, 32, 32],
    mlp_ratio=2.0,
    deformable_groups=2,
    drop_path_rate=0.3,
    optical_flow="spynet_quarter",
)
# The deblurring network's keys that make it narrow and shallow; windows and stages stay. For benchmarks in a hurry.
NARROW_GOPRO: dict[str, Any] = {
    "depths": [4] * 7 + [2] * 4,
    "embed_dims": [24] * 7 + [36] * 4,
    "num_heads": [2] * 11,
    "deformable_groups": 4,
}
