"""Warping by optical flow."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in pixels that (N, 2, H, W) flow points to: x and y, each (N, H, W)."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    return flow[:, 0] + x, flow[:, 1] + y[:, None]


def sample_at(image: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Sample (N, C, H, W) at pixel positions x, y of shape (N, h, w); returns (N, C, h, w)."""
    height, width = image.shape[-2:]
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=3)
    if padding == "border":  # with NaN, PyTorch's backward pass on a CPU crashes the process
        grid = torch.where(grid.isnan(), 0.0, grid)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)


def flow_warp(image: Tensor, flow: Tensor, padding: str = "zeros") -> Tensor:
    """Pull (N, C, H, W) along (N, 2, H, W) flow, channel 0 = x, bilinear: out(p) = image(p + flow(p))."""
    return sample_at(image, *pixel_grid(flow), padding=padding)


def nearest4_warp(image: Tensor, flow: Tensor) -> Tensor:
    """The four pixels around the flow's target: (N, C, H, W) -> (N, 4 * C, H, W).

    Channel order: (floor x, floor y), (floor x, ceil y), (ceil x, floor y), (ceil x, ceil y). No gradient to the flow.
    """
    n, c, h, w = image.shape
    x, y = pixel_grid(flow.detach())
    xs = torch.cat((x.floor(), x.floor(), x.ceil(), x.ceil()), dim=1)
    ys = torch.cat((y.floor(), y.ceil(), y.floor(), y.ceil()), dim=1)
    sampled = sample_at(image, xs, ys, mode="nearest")
    return sampled.view(n, c, 4, h, w).transpose(1, 2).reshape(n, 4 * c, h, w)


def with_neighbours(x: Tensor, own: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
    """Each frame, then the next and the previous one pulled onto it by `nearest4_warp`; missing frames are zero.

    Args:
        x: (B, D, C, H, W), D >= 2.
        own: (B, D, N, H, W), N >= 0: planes passed through without those of the neighbours.
        backward: flow that pulls frame t+1 onto t, (B, D-1, 2, H, W).
        forward: flow that pulls frame t onto t+1, the same shape.

    Returns:
        (B, D, 9 * C + N, H, W): the frame, four planes per channel of the next one, four of the previous one, `own`.
    """
    b, d, c, h, w = x.shape
    neighbour = torch.cat((x[:, 1:], x[:, :-1]), dim=1).flatten(0, 1).float()
    flow = torch.cat((backward, forward), dim=1).flatten(0, 1)
    warped = nearest4_warp(neighbour, flow).to(x.dtype).view(b, 2 * (d - 1), 4 * c, h, w)
    nothing = x.new_zeros(b, 1, 4 * c, h, w)
    following = torch.cat((warped[:, : d - 1], nothing), dim=1)
    previous = torch.cat((nothing, warped[:, d - 1 :]), dim=1)
    return torch.cat((x, following, previous, own), dim=2)


def far_flows(flow: Tensor, reach: int) -> Tensor:
    """Flows to the frames at distances 1 .. reach, composed from flows between neighbours.

    f(t, t+k) = f(t, t+1) + f(t+1, t+k) pulled along f(t, t+1), where `flow` is f(t, t+1) for every t but the last,
    (B, D-1, 2, H, W), in pixels.

    Returns:
        (B, D-1, 2 * reach, H, W), two channels per distance, nearest first; zero where frame t+k does not exist.
    """
    flows = [flow]
    for distance in range(2, reach + 1):
        count = max(flow.shape[1] - distance + 1, 0)  # frames with a neighbour at this distance
        step, rest = flow[:, :count], flows[-1][:, 1 : count + 1]
        longer = step + flow_warp(rest.flatten(0, 1), step.flatten(0, 1)).view_as(step) if count else step
        flows.append(F.pad(longer, (0, 0) * 3 + (0, flow.shape[1] - count)))
    return torch.cat(flows, dim=2)
