"""What every fusion operator is."""

from torch import Tensor, nn


class Fusion(nn.Module):
    """Makes of a frame and its spike planes the planes that the network sees.

    Put RGB first: official weights and `netG.init_type` "identity" take the first three planes for it.

    Args:
        spike_channels: S, number of spike planes a frame; it may be 0.

    Attributes:
        out_chans: planes a frame that `forward` gives; 3 + S, unless the operator says otherwise.
    """

    def __init__(self, spike_channels: int) -> None:
        super().__init__()
        self.out_chans = 3 + spike_channels

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        """(B, D, 3, H, W) in [0, 1] and (B, D, S, H, W), white is 1 -> (B, D, out_chans, H, W), finite."""
        raise NotImplementedError
