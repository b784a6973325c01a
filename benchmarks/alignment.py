"""What the alignment of two cameras is worth: simulated offsets, measured, corrected, and restored.

python benchmarks/alignment.py --run experiments/demo [--frames 3]

Three scenes of photographs are rendered step by step for two cameras; the spikes' camera is shifted, turned, scaled and
late, its sensor has other thresholds and a fixed pattern. `spike.py align` measures each set of three clips. Corner:
largest distance in spike pixels between measured and true place of a corner. PSNR in dB over what the sensor sees:
aligned cameras; without alignment; after it.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from bench import print_result

from data.dataset_video_test import VideoTestDataset
from data.geometry import Box
from data.layout import DatasetWriter, Frame, gt_dir, lq_dir, spike_dir
from data.prepare.demo_scene import Scene
from data.spike.align.camera_pair import Row, Settings, align_set, blocks_in
from data.spike.alignment import Warp
from data.spike.manifest import ClipTiming, simulated_manifest
from data.spike.refire import Draw, charge_of_light, draw_pixels, fire
from models.model_vrt import ModelVRT
from models.select_model import define_restorer
from options.schema import DatasetOpt, Opt
from utils import utils_dist, utils_option, utils_run_folder
from utils.utils_cli import Parser, positive, program
from utils.utils_colour import to_gray
from utils.utils_image import to_uint8
from utils.utils_rgbspike import stacked

SCENES = [
    ("motorcycle_left.png", "astronaut.png", "camera.png"),
    ("astronaut.png", "camera.png", "motorcycle_left.png"),
    ("camera.png", "motorcycle_left.png", "astronaut.png"),
]
SIZE, RATIO, MARGIN = (192, 256), 2, 48  # of the frames; pixels that only the spikes' camera may see
SENSOR = SIZE[0] // RATIO, SIZE[1] // RATIO
STEPS, EXPOSURE, SHARP = 56, 49, 24


class Offset(NamedTuple):
    """Where and when the spikes' camera sees: spike pixels, degrees about the middle, factor, steps."""

    right: float = 0.0
    down: float = 0.0
    turn: float = 0.0
    scale: float = 1.0
    late: int = 0

    def matrix(self) -> np.ndarray:
        """Return the matrix from a frame's spike grid to the sensor."""
        y, x = ((side - 1) / 2 for side in SENSOR)
        c, s = self.scale * np.cos(np.radians(self.turn)), self.scale * np.sin(np.radians(self.turn))
        return np.array([[c, -s, x + self.right - c * x + s * y], [s, c, y + self.down - s * x - c * y], [0, 0, 1]])


OFFSETS = {
    "8 pixels": Offset(right=5.7, down=-5.6),
    "2 degrees, 3 %": Offset(turn=2, scale=1.03),
    "12 steps": Offset(late=12),
    "all": Offset(5.3, -3.1, -2, 0.97, -12),
}
SENSORS = {
    "threshold 2": Draw(theta=2),
    "threshold 1, pattern 8 %": Draw(theta=1, pattern=0.08, dark=0.005, jitter=0.02),
    "threshold 4, pattern 16 %": Draw(theta=4, pattern=0.16, dark=0.005, jitter=0.04),
}


class Recorded(NamedTuple):
    """A clip: blurred and sharp frames (F, H, W, 3) uint8, and the light of all steps on the sensor (F T, h, w)."""

    blurred: list[np.ndarray]
    sharp: list[np.ndarray]
    light: np.ndarray


def record(number: int, offset: Offset, frames: int) -> Recorded:
    """Render a scene for both cameras."""
    background, *cutouts = SCENES[number]
    size = (SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN)
    scene = Scene(background, cutouts, size, np.random.default_rng([7, number]))
    fine = np.array([[RATIO, 0, (RATIO - 1) / 2], [0, RATIO, (RATIO - 1) / 2], [0, 0, 1]])
    to_sensor = fine @ offset.matrix() @ np.linalg.inv(fine) @ np.array([[1, 0, -MARGIN], [0, 1, -MARGIN], [0, 0, 1]])
    light = np.empty((frames * STEPS, *SENSOR), np.float32)
    inner = slice(MARGIN, -MARGIN)
    blurred: list[np.ndarray] = []
    sharp: list[np.ndarray] = []
    total = np.zeros((*SIZE, 3), np.float32)
    for step in range(min(-offset.late, 0), frames * STEPS + max(-offset.late, 0)):
        wide = scene.render(step)
        frame, at = divmod(step, STEPS)
        if 0 <= frame < frames and at < EXPOSURE:
            own = wide[inner, inner]
            total = total * (at > 0) + own
            if at == SHARP:
                sharp.append(own.copy())
            if at == EXPOSURE - 1:
                blurred.append(np.rint(total / EXPOSURE).astype(np.uint8))
        if 0 <= step + offset.late < len(light):
            gray = to_gray(wide.astype(np.float32) / 255)
            seen = cv2.warpPerspective(gray, to_sensor, SIZE[::-1], flags=cv2.INTER_LANCZOS4)
            light[step + offset.late] = cv2.resize(seen, light.shape[:0:-1], interpolation=cv2.INTER_AREA)
    return Recorded(blurred, sharp, light.clip(0, 1))


def write_set(root: Path, clips: list[Recorded], draw: Draw) -> None:
    """Write the clips as a data set, with the spikes of a sensor."""
    assert draw.theta is not None
    manifest = simulated_manifest(SIZE, RATIO, draw.theta, clock_hz=1920.0, noise="sensor")
    timing = ClipTiming(steps=STEPS, exposure=(0, EXPOSURE), sharp_step=SHARP)
    with DatasetWriter(root, manifest) as writer:
        for number, clip in enumerate(clips):
            sensor = draw_pixels(np.random.default_rng([draw.seed, 1]), draw, SENSOR)
            charge = charge_of_light(clip.light / np.float32(draw.theta), sensor)
            spikes = fire(charge, draw.jitter, np.random.default_rng([draw.seed, number]))
            pieces = spikes.reshape(-1, STEPS, *SENSOR)
            made = (Frame(*each) for each in zip(clip.blurred, clip.sharp, pieces, strict=True))
            writer.add_clip("test", f"clip_{number}", made, timing)
        writer.finish()


def restored(root: Path, spike: DatasetOpt, model: ModelVRT, frames: list[int], seen: np.ndarray) -> float:
    """Return the mean PSNR of some frames over the pixels that the sensor sees."""
    changes = {
        "dataroot_lq": str(lq_dir(root, "test")), "dataroot_gt": str(gt_dir(root, "test")),
        "dataroot_spike": str(spike_dir(root, "test")), "meta_info_file": None, "spike_h": None, "spike_w": None,
    }  # fmt: skip
    given = spike.model_dump(exclude={"dataroot_instants", "dataroot_subframes"}) | changes
    found = []
    data = VideoTestDataset(DatasetOpt.model_validate(given))
    for clip in data.clips:
        for index in frames:
            window = clip.network_input(index, index + 1)
            out = to_uint8(model.restore(stacked([window]))[0, 0])
            error = (out.astype(np.float64) - clip.gt(index, index + 1)[0])[seen]
            found.append(10 * np.log10(255**2 / np.mean(error**2)))
    return float(np.mean(found))


def rows(model: ModelVRT, spike: DatasetOpt, count: int, frames: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one row per offset and sensor."""
    middle = [frames // 2 - count // 2 + index for index in range(count)]
    straight = [record(number, Offset(), frames) for number in range(len(SCENES))]
    for name in names:
        offset = OFFSETS[name]
        moved = [record(number, offset, frames) for number in range(len(SCENES))]
        seen = _seen(offset)
        for sensor, draw in SENSORS.items():
            with tempfile.TemporaryDirectory() as folder:
                ideal, off = Path(folder) / "ideal", Path(folder) / "off"
                write_set(ideal, straight, draw)
                write_set(off, moved, draw)
                psnr = partial(restored, spike=spike, model=model, frames=middle, seen=seen)
                before = psnr(off)
                alone = align_set(blocks_in(off), Settings(per_clip=True), write=False)
                found = align_set(blocks_in(off))
                late = [abs(row.alignment.steps - offset.late) for row in found.rows if row.alignment]
                yield {
                    "offset": name,
                    "sensor": sensor,
                    "model": found.rows[0].alignment.model if found.rows[0].alignment else "none",
                    "corner_clip": max(_corner(row, offset) for row in alone.rows),
                    "corner_set": max(_corner(row, offset) for row in found.rows),
                    "error": max(row.alignment.error or 0.0 for row in alone.rows if row.alignment),
                    "steps": max(late, default=float("inf")),
                    "aligned": psnr(ideal),
                    "before": before,
                    "after": psnr(off),
                }


def _seen(offset: Offset) -> np.ndarray:
    """Return the frame's pixels that the sensor sees, with some room, (H, W) bool."""
    inner = np.zeros(SENSOR, np.float32)
    inner[3:-3, 3:-3] = 1
    moved = Warp(offset.matrix(), SENSOR)(inner[None], Box(0, 0, *SENSOR))[0]
    return np.repeat(np.repeat(moved > 0.999, RATIO, 0), RATIO, 1)


def _corner(row: Row, offset: Offset) -> float:
    if row.alignment is None:
        return float("inf")
    height, width = SENSOR
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]]).T
    there, wanted = np.array(row.alignment.matrix) @ corners, offset.matrix() @ corners
    return float(np.hypot(*(there[:2] / there[2] - wanted[:2] / wanted[2])).max())


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    opt = utils_option.load(utils_run_folder.RunFolder(args.run).options, Opt)
    weights, reason = utils_run_folder.find_weights(args.run, None, None)
    model = define_restorer(opt, weights, reason, utils_dist.init())
    assert opt.datasets.test is not None
    print("| offset | sensor | model | corner, clip | corner, set | steps | aligned | before | after |")
    print("| --- " * 9 + "|")
    found = []
    for row in rows(model, opt.datasets.test, args.frames, args.length, args.only or list(OFFSETS)):
        found.append(row)
        print(
            "| {offset} | {sensor} | {model} | {corner_clip:.3f} | {corner_set:.3f} | {steps:.0f} | {aligned:.2f} | "
            "{before:.2f} | {after:.2f} |".format(**row),
            flush=True,
        )
    print_result("alignment", rows=found)


def main() -> None:
    """Read the command line and measure."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run, experiments/<task>")
    parser.add_argument("--frames", type=positive, default=3, help="restored frames per clip")
    parser.add_argument("--length", type=positive, default=12, help="frames per clip")
    parser.add_argument("--only", nargs="+", choices=OFFSETS, help="offsets to simulate (default: all)")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        run(args)


if __name__ == "__main__":
    main()
