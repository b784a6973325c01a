"""What every fusion operator is."""

from torch import Tensor, nn


class Fusion(nn.Module):
    """Makes of a frame and its spike planes the planes that the network sees.

    Put RGB first: official weights and `netG.init_type` "identity" take the first three planes for it. There may be no
    spike planes.

    Attributes:
        out_chans: planes a frame that `forward` gives; 3 + S, unless the operator says otherwise.
        own_grid: `estimate` reads spikes on the sensor's grid, in whatever number of planes the operator wants; the
            network cannot take RGB and spikes as one tensor.
    """

    own_grid = False

    def __init__(self, spike_channels: int) -> None:
        super().__init__()
        self.out_chans = 3 + spike_channels

    def estimate(self, rgb: Tensor, spike: Tensor | None) -> Tensor:
        """Sharper frames that take the place of the blurred ones everywhere; by default these themselves.

        Args:
            rgb: (B, D, 3, H, W) in [0, 1].
            spike: (B, D, S', h, w) on the sensor's grid, white is 1; None without spikes.

        Returns:
            (B, D, 3, H, W).
        """
        return rgb

    def select(self, spike: Tensor) -> Tensor:
        """The planes that `forward` gets, (B, D, S', h, w) -> (B, D, S, h, w); by default all."""
        return spike

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        """(B, D, 3, H, W) in [0, 1] and (B, D, S, H, W), white is 1 -> (B, D, out_chans, H, W), finite."""
        raise NotImplementedError
