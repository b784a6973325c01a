"""Make a recording as two cameras side by side make it: prepare_recording.py without cameras (docs/my_camera.md).

A spike camera of 180x320 pixels at 20,000 steps per second and a camera of 360x640 pixels see photographs that
scikit-image ships move. The camera takes 33.3 frames per second, each exposed for 20 ms, 400 steps.

walk.dat     the stream of the spike camera
blurred/     frames of the camera
sharp/       the middles of their exposures, which no camera would see
times.csv    start and end of each exposure, in seconds

python scripts/data_preparation/make_demo_recording.py [--out datasets/demo_recording] [--frames N] [--seed S]
"""

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.prepare.demo_scene import Scene
from data.spike.simulator import integrate_and_fire
from utils.spike_loader import write_spikes
from utils.utils_cli import Parser, positive, program, whole
from utils.utils_colour import to_gray
from utils.utils_error import UserError
from utils.utils_file import write_text
from utils.utils_image import write_rgb
from utils.utils_progress import progress

CLOCK_HZ, THETA = 20000, 3.0
RGB, SPIKES = (360, 640), (180, 320)
FIRST, PERIOD, EXPOSURE = 120, 600, 400  # steps
HELD = 5  # steps between two renderings: objects move by less than a third of a pixel
PACE = 0.12  # of the scene's own steps, of which the demo set exposes 49
PHOTOGRAPHS = "astronaut.png", ["motorcycle_left.png", "camera.png"]


def make_demo_recording(out: Path, frames: int, seed: int) -> None:
    """Render and write a recording.

    Raises:
        UserError: `out` exists.
    """
    if out.exists():
        raise UserError(f"--out {out}: already exists, expected a new folder; remove it or choose another")
    rng = np.random.default_rng(seed)
    scene = Scene(*PHOTOGRAPHS, RGB, rng)
    charge, pieces, rows = None, [], ["frame,start,end"]
    light = np.zeros((*RGB, 3), np.float64)
    for first in progress(range(0, FIRST + frames * PERIOD, HELD), what="rendering", unit="picture"):
        rgb = scene.render(first * PACE)
        small = cv2.resize(rgb.astype(np.float32) / 255, SPIKES[::-1], interpolation=cv2.INTER_AREA)
        spikes, charge = integrate_and_fire(np.repeat(to_gray(small)[None], HELD, axis=0), THETA, rng, charge)
        pieces.append(spikes)
        frame, step = divmod(first - FIRST, PERIOD)
        name = f"shot_{frame + 1:04d}.png"
        if frame < 0 or step >= EXPOSURE:
            continue
        light += rgb
        if step == EXPOSURE // 2:
            write_rgb(out / "sharp" / name, rgb)
        if step == EXPOSURE - HELD:
            write_rgb(out / "blurred" / name, np.rint(light * HELD / EXPOSURE).astype(np.uint8))
            begin = first + HELD - EXPOSURE
            rows.append(f"{name},{begin / CLOCK_HZ:.5f},{(begin + EXPOSURE) / CLOCK_HZ:.5f}")
            light[:] = 0
    write_spikes(out / "walk.dat", np.concatenate(pieces))
    write_text(out / "times.csv", "\n".join(rows) + "\n")
    print(f"{out}: {frames} frames of {RGB[0]}x{RGB[1]}, {FIRST + frames * PERIOD} steps of {SPIKES[0]}x{SPIKES[1]}")


def main() -> None:
    """Read the command line and make the recording."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("datasets/demo_recording"), help="a new folder for the recording"
    )
    parser.add_argument("--frames", type=positive, default=6, metavar="N", help="blurred frames")
    parser.add_argument("--seed", type=whole, default=5, help="the same seed gives the same bytes")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        make_demo_recording(args.out, args.frames, args.seed)


if __name__ == "__main__":
    main()
