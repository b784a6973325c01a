"""What every optical flow operator is."""

from torch import Tensor, nn


class Flow(nn.Module):
    """Estimates how the pixels of a frame move to a neighbouring one. `netG.spynet_path` may name its weights."""

    def forward(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        """Flow that pulls `supp` onto `ref` at four scales.

        Args:
            ref: (N, 3, H, W) RGB in [0, 1]; H and W are 8 or more.
            supp: the neighbour, the same shape.

        Returns:
            Four flows in pixels of their own scale, (N, 2, H // s, W // s) for s = 1, 2, 4, 8; channel 0 is x.
        """
        raise NotImplementedError
