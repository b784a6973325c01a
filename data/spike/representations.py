"""From spikes to planes: functions on arrays, no files and no options."""

import cv2
import numpy as np

from utils.utils_error import UserError


def tfp(spikes: np.ndarray, center: int, window: int) -> np.ndarray:
    """Texture from playback: mean firing rate in a window of steps around `center`.

    Args:
        spikes: (T, H, W) uint8, 0 or 1, row 0 at the top; T sensor steps.
        center: step index; center - window//2 .. center + window//2 must lie inside [0, T).
        window: number of steps, odd.

    Returns:
        (H, W) float32, spikes per step in [0, 1].

    Raises:
        UserError: the window is even or leaves the stream; the message has center, window and T.
    """
    first, last = center - window // 2, center + window // 2
    if window < 1 or window % 2 == 0:
        raise UserError(f"tfp: window={window} must be odd and positive (center={center}, T={len(spikes)})")
    if first < 0 or last >= len(spikes):
        raise UserError(
            f"tfp: center={center}, window={window} needs steps {first}..{last}, found T={len(spikes)}; "
            "use a smaller spike window or another center"
        )
    return spikes[first : last + 1].sum(axis=0, dtype=np.float32) / np.float32(window)


def upsample(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize with half-pixel centres; pixels beyond the border repeat the border.

    Args:
        plane: (h, w) float32.
        size: (H, W) of the result.

    Returns:
        (H, W) float32.
    """
    return cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def sdm(blur: np.ndarray, tfp_short: np.ndarray, tfp_exposure: np.ndarray) -> np.ndarray:
    """Training-free sharp estimate: the blurred picture times short-time over exposure-time firing rate.

    The sensor's gain cancels in the ratio.

    Args:
        blur: (H, W, 3) float, RGB in [0, 1].
        tfp_short: (h, w) float32, firing rate around the wanted instant.
        tfp_exposure: (h, w) float32, firing rate over the exposure of `blur`.

    Returns:
        (H, W, 3) float32, RGB in [0, 1]; 0 where no spike fell into the exposure.
    """
    ratio = np.divide(tfp_short, tfp_exposure, out=np.zeros_like(tfp_short), where=tfp_exposure > 0)
    sharp = blur * upsample(ratio, (blur.shape[0], blur.shape[1]))[:, :, None]
    return np.clip(sharp, 0, 1).astype(np.float32)
