"""Moving scenes made of any pictures: a camera that pans, shakes, turns, zooms and tilts over one, layers of others.

Every path is a sum of sines, so a scene can be rendered at any instant. Speeds are in frame heights per step.
"""

import cv2
import numpy as np

from data.prepare.demo_scene import Path1D, Wave, outline, paste, point, position, random_wave, rotation

SPEEDS = (4e-4, 4e-3)  # of the camera and of layers, drawn log-uniformly
SLOW = (2e-5, 4e-4)  # of scenes that hardly move
MOST_LAYERS = 4
TRIES = 4  # places of which the one with most texture is taken
MARGIN = 1.3  # least size of a picture, in frames
FINEST = 2.5  # of the least scale of a picture or video: how fine its texture may be

Shake = tuple[Path1D, Path1D]  # (x, y) in pixels


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw log-uniformly from [low, high)."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def fitted(picture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Scale a picture down so that it is at least `MARGIN` frames wide and high; smaller ones are enlarged to that.

    Args:
        picture: (H', W', 3) uint8.
        size: (H, W) of the frames, pixels.
        rng: draws the scale, so that fine and coarse texture occur.

    Returns:
        (H'', W'', 3) uint8.
    """
    least = MARGIN * max(size[0] / picture.shape[0], size[1] / picture.shape[1])
    scale = log_uniform(rng, least, min(FINEST * least, 1.0)) if least < 1 else least
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def toned(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness and contrast, (H, W, 3) uint8, as exposure and light do."""
    gain, gamma = rng.uniform(0.6, 1.15), rng.uniform(0.75, 1.35)
    levels = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255)
    return np.asarray(cv2.LUT(picture, np.rint(levels).astype(np.uint8)))


def textured_place(picture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Choose the centre (x, y) of a part of (H, W) pixels with much texture, as far inside as the picture allows."""
    sides = np.array([picture.shape[1], picture.shape[0]], float)
    half = np.minimum(np.array([size[1], size[0]]) / 2, sides / 2)
    places = [half + rng.random(2) * (sides - 2 * half) for _ in range(TRIES)]

    def texture(center: np.ndarray) -> float:
        (left, top), (right, bottom) = (center - half).astype(int), (center + half).astype(int)
        gray = cv2.cvtColor(picture[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
        return float(np.abs(cv2.Laplacian(gray, cv2.CV_16S)).mean())

    return max(places, key=texture)


def random_shake(rng: np.random.Generator, height: int, speed: float) -> Shake:
    """Draw a small fast motion of the camera, which all layers share; its peak speed is up to that of the pan."""

    def path() -> Path1D:
        amplitude = height * log_uniform(rng, 0.001, 0.012)
        return (random_wave(rng, amplitude, (0.1 * speed * height, speed * height)),)

    return path(), path()


class Background:
    """A picture under a camera.

    Args:
        picture: (H', W', 3) uint8, at least as large as a frame.
        size: (H, W) of the frames, pixels.
        speed: peak speed of the pan, frame heights per step.
        shake: of the camera.
        rng: draws all paths.
    """

    def __init__(
        self, picture: np.ndarray, size: tuple[int, int], speed: float, shake: Shake, rng: np.random.Generator
    ) -> None:
        self.picture, self.size, self.shake = toned(fitted(picture, size, rng), rng), size, shake
        self.center = textured_place(self.picture, size, rng)
        angle, height = rng.uniform(0, 2 * np.pi), size[0]
        period = rng.uniform(200, 1200)
        amplitude = speed * height * period / (2 * np.pi)
        phase = rng.uniform()
        self.paths: list[Path1D] = [
            (Wave(amplitude * float(np.cos(angle)), period, phase), Wave(0.1 * amplitude, period / 3, rng.uniform())),
            (Wave(amplitude * float(np.sin(angle)), period, phase), Wave(0.1 * amplitude, period / 3, rng.uniform())),
        ]
        self.offset = point(self.paths, 0)
        turn = log_uniform(rng, 0.01, 0.2)
        self.angle: Path1D = (Wave(turn, rng.uniform(200, 900), rng.uniform()),)
        self.zoom: Path1D = (Wave(log_uniform(rng, 0.01, 0.15), rng.uniform(200, 900), rng.uniform()),)
        self.tilts: list[Path1D] = [
            (Wave(log_uniform(rng, 0.005, 0.12), rng.uniform(200, 900), rng.uniform()),) for _ in size
        ]

    def render(self, step: float) -> np.ndarray:
        """Return the view at one step: (H, W, 3) uint8."""
        height, width = self.size
        x, y = self.center + (point(self.paths, step) - self.offset) + point(self.shake, step)
        angle, scale = position(self.angle, step), float(np.exp(position(self.zoom, step)))
        tilts = point(self.tilts, step)
        middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
        tilt = np.array([[1, 0, 0], [0, 1, 0], [tilts[0] / width, tilts[1] / height, 1]])
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
        matrix, flags = turn @ tilt @ middle, cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(
            self.picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )


class Layer:
    """A piece of a picture with a soft edge that moves, turns and grows in front of the background; arguments as of
    Background."""

    def __init__(
        self, picture: np.ndarray, size: tuple[int, int], speed: float, shake: Shake, rng: np.random.Generator
    ) -> None:
        height, width = size
        self.shake, self.piece, self.alpha = shake, *_piece(toned(picture, rng), height, rng)
        self.start = rng.uniform(0.1, 0.9, 2) * (width, height)
        angle = rng.uniform(0, 2 * np.pi)
        amplitude = height * rng.uniform(0.1, 0.6)
        self.path: Path1D = (random_wave(rng, amplitude, (0.5 * speed * height, speed * height)),)
        self.direction = np.array([np.cos(angle), np.sin(angle)])
        self.moved = position(self.path, 0)
        self.angle: Path1D = (
            random_wave(rng, rng.uniform(0.2, 1.5), (0.2 * speed, 4 * speed)),
            Wave(np.pi, 1e9, rng.uniform()),  # any direction, at rest
        )
        self.zoom: Path1D = (Wave(log_uniform(rng, 0.01, 0.2), rng.uniform(200, 900), rng.uniform()),)

    def draw(self, frame: np.ndarray, step: float) -> None:
        """Paint the layer over `frame`, (H, W, 3) uint8, in place."""
        center = self.start + (position(self.path, step) - self.moved) * self.direction - point(self.shake, step)
        scale = float(np.exp(position(self.zoom, step)))
        reach = float(np.hypot(self.piece.shape[1], self.piece.shape[0])) / 2 * scale + 1
        turn = rotation(position(self.angle, step)) / scale
        paste(frame, self.piece, self.alpha, center, turn, reach, cv2.INTER_CUBIC)


def _piece(picture: np.ndarray, height: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut a piece: (h, w, 3) uint8 and its opacity (h, w) float32 in [0, 1], 0 at the border."""
    side = height * log_uniform(rng, 0.08, 0.6)
    stretch = log_uniform(rng, 0.15, 1.0)  # thin ones too
    rows, columns = (max(round(side * part), 4) for part in (stretch, 1.0))
    scale = min(rng.uniform(1.0, 2.5), picture.shape[0] / rows, picture.shape[1] / columns)
    source = max(int(rows * scale), 1), max(int(columns * scale), 1)
    top, left = (int(rng.integers(length - part + 1)) for length, part in zip(picture.shape, source, strict=False))
    part = picture[top : top + source[0], left : left + source[1]]
    soft = log_uniform(rng, 0.4, 3.0)
    alpha = cv2.resize(outline(max(rows, columns), rng), (columns, rows), interpolation=cv2.INTER_AREA)
    alpha[[0, -1]] = 0
    alpha[:, [0, -1]] = 0
    alpha = cv2.GaussianBlur(alpha.astype(np.float32) / 255, (0, 0), soft, borderType=cv2.BORDER_CONSTANT)
    return cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), alpha


class PhotoScene:
    """One clip's world.

    Args:
        background: (H', W', 3) uint8 RGB.
        layers: pictures of the moving layers, back to front.
        size: (H, W) of the frames, pixels.
        rng: draws all paths.
        speeds: (lowest, highest) of the camera and of layers.
    """

    def __init__(
        self,
        background: np.ndarray,
        layers: list[np.ndarray],
        size: tuple[int, int],
        rng: np.random.Generator,
        speeds: tuple[float, float] = SPEEDS,
    ) -> None:
        speed = log_uniform(rng, *speeds)
        shake = random_shake(rng, size[0], speed)
        self.background = Background(background, size, speed, shake, rng)
        self.layers = [Layer(picture, size, log_uniform(rng, *speeds), shake, rng) for picture in layers]

    def render(self, step: float) -> np.ndarray:
        """Return the view at one step: (H, W, 3) uint8, RGB."""
        frame = self.background.render(step)
        for layer in self.layers:
            layer.draw(frame, step)
        return frame
