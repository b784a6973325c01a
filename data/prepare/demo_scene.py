"""A moving scene made of photographs: a virtual camera pans over one; cut-outs of others move in front of it.

Every path is a sum of sines, so positions depend only on the step. Lengths are relative to the frame height, so a small
frame shows the same scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image

from utils.utils_error import UserError

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
# Peak speeds of background and cut-outs, in frame heights per step.
PAN_SPEED = (0.0013, 0.0019)
CUTOUT_SPEED = (0.0013, 0.002)


@dataclass(frozen=True)
class Wave:
    """amplitude * sin(2 pi (step / period + phase)), period in steps."""

    amplitude: float
    period: float
    phase: float


Path1D = tuple[Wave, ...]


def position(path: Path1D, step: float) -> float:
    """Return the sum of a path's waves at one step."""
    return sum(wave.amplitude * np.sin(2 * np.pi * (step / wave.period + wave.phase)) for wave in path)


def point(paths: Sequence[Path1D], step: float) -> np.ndarray:
    """Return (x, y) of two paths at one step."""
    return np.array([position(path, step) for path in paths])


def rotation(angle: float) -> np.ndarray:
    """Return the (2, 2) matrix that rotates by an angle."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def random_wave(rng: np.random.Generator, amplitude: float, speed: tuple[float, float]) -> Wave:
    """Return a wave whose peak speed per step is drawn from `speed`, in the unit of `amplitude`."""
    period = 2 * np.pi * amplitude / rng.uniform(*speed)
    return Wave(amplitude, period, rng.uniform())


def read_photograph(name: str, height: int) -> np.ndarray:
    """Read a photograph that scikit-image ships, scaled to suit a frame of `height` rows.

    Args:
        name: file name inside skimage/data.
        height: frame height in pixels; the photograph's short side becomes 1.75 to 2.4 times that.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UserError: this release of scikit-image does not ship the file.
    """
    path = PHOTOGRAPHS / name
    if not path.is_file():
        raise UserError(f"{path}: no such photograph, expected one that scikit-image ships; install scikit-image 0.26")
    with Image.open(path) as image:
        photo = np.asarray(image.convert("RGB"))
    short = min(photo.shape[:2])
    scale = np.clip(short, 1.75 * height, 2.4 * height) / short
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(photo, None, fx=scale, fy=scale, interpolation=interpolation)


def outline(side: int, rng: np.random.Generator) -> np.ndarray:
    """Return a (side, side) uint8 mask, 255 inside, of a smooth-edged disc, rounded box or polygon."""
    big = 4 * side
    mask = np.zeros((big, big), np.uint8)
    kind = rng.integers(3)
    if kind == 0:
        cv2.circle(mask, (big // 2, big // 2), int(0.48 * big), 255, -1)
    elif kind == 1:
        corner = int(0.12 * big)
        low, high = corner + int(0.06 * big), big - corner - int(0.06 * big)
        box = np.array([[low, low], [high, low], [high, high], [low, high]], np.int32)
        cv2.fillPoly(mask, [box], 255)
        cv2.polylines(mask, [box], True, 255, 2 * corner)
    else:
        corners = rng.integers(5, 8)
        angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
        radii = big * rng.uniform(0.36, 0.48, corners)
        points = big / 2 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
        cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)


def paste(
    frame: np.ndarray,
    piece: np.ndarray,
    alpha: np.ndarray,
    center: np.ndarray,
    turn: np.ndarray,
    reach: float,
    interpolation: int,
) -> None:
    """Paint a piece over a frame, both (H, W, 3) uint8, in place, with its middle at (x, y).

    `alpha` is its opacity, (h, w) uint8, or float32 in [0, 1]; `turn`, (2, 2), takes distances in the frame to those in
    the piece, of which nothing is farther from the middle than `reach` pixels of the frame.
    """
    low = np.maximum(np.floor(center - reach).astype(int), 0)
    high = np.minimum(np.ceil(center + reach).astype(int), [frame.shape[1], frame.shape[0]])
    if (high <= low).any():
        return
    sides = np.array([piece.shape[1], piece.shape[0]])
    matrix = np.column_stack([turn, sides / 2 + turn @ (low - center)])
    box, inverse = (int(high[0] - low[0]), int(high[1] - low[1])), cv2.WARP_INVERSE_MAP
    piece = cv2.warpAffine(piece, matrix, box, flags=interpolation | inverse, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(alpha, matrix, box, flags=cv2.INTER_LINEAR | inverse)[..., None]
    if alpha.dtype == np.uint8:
        alpha = alpha.astype(np.float32) / 255
    under = frame[low[1] : high[1], low[0] : high[0]]
    under[...] = np.rint(under + alpha * (piece.astype(np.float32) - under))


class Camera:
    """A view of (height, width) pixels that pans, shakes, rotates and zooms over a photograph."""

    def __init__(self, photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        self.photo, self.size = photo, size
        rows, columns = photo.shape[:2]
        speed = PAN_SPEED[0] * height, PAN_SPEED[1] * height
        shake = 0.006 * height
        self.paths: list[Path1D] = []
        for side, view in ((columns, width), (rows, height)):
            room = max(0.5 * (side - 1.2 * view), 0.1 * view) * rng.uniform(0.7, 1.0)
            pan = random_wave(rng, room, speed)
            self.paths.append((pan, Wave(shake * rng.uniform(0.5, 1.0), rng.uniform(60, 120), rng.uniform())))
        self.angle: Path1D = (Wave(rng.uniform(0.04, 0.1), rng.uniform(500, 900), rng.uniform()),)
        self.zoom: Path1D = (Wave(rng.uniform(0.05, 0.1), rng.uniform(500, 900), rng.uniform()),)

    def render(self, step: float) -> np.ndarray:
        """Return the view at one step: (height, width, 3) uint8."""
        height, width = self.size
        rows, columns = self.photo.shape[:2]
        turn = 1.0 / (1.12 + position(self.zoom, step)) * rotation(position(self.angle, step))
        center = np.array([columns / 2, rows / 2]) + point(self.paths, step)
        matrix = np.column_stack([turn, center - turn @ [width / 2, height / 2]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self.photo, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


class Cutout:
    """A piece of a photograph that moves and rotates in front of the background."""

    def __init__(self, photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        self.side = max(4, int(height * rng.uniform(0.26, 0.4)))
        source = int(min(photo.shape[:2]) * rng.uniform(0.3, 0.5))
        top, left = (int(rng.integers(length - source + 1)) for length in photo.shape[:2])
        piece = photo[top : top + source, left : left + source]
        self.piece = cv2.resize(piece, (self.side, self.side), interpolation=cv2.INTER_AREA)
        self.alpha = outline(self.side, rng)
        speed = CUTOUT_SPEED[0] * height, CUTOUT_SPEED[1] * height
        self.middle = np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
        amplitudes = np.array([width, height]) * rng.uniform(0.25, 0.4, 2)
        self.paths: list[Path1D] = [(random_wave(rng, amplitude, speed),) for amplitude in amplitudes]
        self.angle: Path1D = (random_wave(rng, rng.uniform(0.5, 1.5), (0.004, 0.012)),)

    def draw(self, frame: np.ndarray, step: float) -> None:
        """Paint the cut-out over `frame`, (height, width, 3) uint8, in place."""
        center, turn = self.middle + point(self.paths, step), rotation(position(self.angle, step))
        paste(frame, self.piece, self.alpha, center, turn, 0.75 * self.side, cv2.INTER_LINEAR)


class Scene:
    """One clip's world: a background photograph and cut-outs of other photographs."""

    def __init__(self, background: str, cutouts: list[str], size: tuple[int, int], rng: np.random.Generator) -> None:
        """Draw all paths.

        Args:
            background: file name inside skimage/data.
            cutouts: file names of the photographs for the moving pieces, back to front.
            size: (H, W) of the frames, pixels.
            rng: source of randomness.
        """
        self.camera = Camera(read_photograph(background, size[0]), size, rng)
        self.cutouts = [Cutout(read_photograph(name, size[0]), size, rng) for name in cutouts]

    def render(self, step: float) -> np.ndarray:
        """Return the view at one step: (H, W, 3) uint8, RGB."""
        frame = self.camera.render(step)
        for cutout in self.cutouts:
            cutout.draw(frame, step)
        return frame
