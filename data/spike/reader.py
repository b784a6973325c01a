"""Read the spike steps around the frames of a data set, and check all of its files."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from data.clip_index import Clips, existing_folder
from data.frame_order import in_time
from data.recent import Recent
from data.spike.manifest import GOPRO_SHORT_BY, ClipTiming, Manifest, gopro_timing
from data.spike.planes import REPRESENTATIONS, Span
from data.spike.sensor import Evidence, Sensor, resolve_sensor
from data.spike.store import open_store
from data.spike.stream import Cut, Timeline, mirrored
from data.spike.texture import likelier_size
from options.schema import DatasetOpt
from utils.spike_loader import Size, decode, implied_sizes, steps_in
from utils.utils_error import UserError, say_once

NAMED = 5  # most frames named per problem


def clip_timing(manifest: Manifest | None, clip: str) -> ClipTiming:
    """Return the timing of a clip, without a manifest by GoPro's rules; UserError if there is none."""
    return gopro_timing(clip) if manifest is None else manifest.timing(clip)


class SpikeReader:
    """Spikes below `opt.dataroot_spike`, a folder of `.dat` files or an LMDB of them.

    Args:
        opt: options of the data set.
        clips: names of the clips that will be read.
        frame_size: returns (H, W) of a clip's frames, to explain a `.dat` of the wrong size.
        keep_files: keep the files of one frame's steps open, so that reading in order opens each file once.

    Raises:
        UserError: a clip is missing, or options, manifest and files disagree.
    """

    def __init__(
        self,
        opt: DatasetOpt,
        clips: Clips,
        frame_size: Callable[[str], Size] | None = None,
        *,
        keep_files: bool = False,
    ) -> None:
        self.root = existing_folder(opt.dataroot_spike, f"{opt.name}: dataroot_spike")
        self.opt, self._frame_size = opt.spike, frame_size
        self.manifest = Manifest.load(self.root)
        self.store = open_store(self.root, clips)
        self._keep_files = keep_files
        self._packed: Recent[tuple[str, str], np.ndarray] = Recent(int(keep_files))
        self._sizes = {clip: self.store.sizes(clip) for clip in clips}
        self.sensor = resolve_sensor(opt, self.manifest, self._evidence())
        if self.manifest is None:
            say_once(
                "{}: no manifest.json, using GoPro's rules: {}x{} spikes, flipud {}, rate_at_white {:g}, bit_order {}, "
                "timing from the number in each clip's name, one stream per clip".format(self.root, *self.sensor)
            )
        self.timings = {clip: clip_timing(self.manifest, clip) for clip in clips}
        own = {clip: timing.spike_size or self.sensor.size for clip, timing in self.timings.items()}
        self.sensors = {clip: self.sensor._replace(height=h, width=w) for clip, (h, w) in own.items()}
        self._last = {
            clip: in_time(files, f"clip {clip}: spikes in {self.root}")[-1] for clip, files in self._sizes.items()
        }
        continuous = self.manifest is None or self.manifest.continuous
        self._timelines = {clip: Timeline(self._lengths(clip), continuous) for clip in clips}

    @property
    def is_linear(self) -> bool:
        """Whether the sensor integrated linear light; RGB frames are sRGB."""
        return self.manifest is not None and self.manifest.transfer == "linear"

    def sensor_of(self, clip: str) -> Sensor:
        """Return geometry and gain of a clip's spikes; clips may differ in size."""
        return self.sensors[clip]

    def target_step(self, clip: str) -> int:
        """Return the step that a frame's planes show: spike.center, else the clip's sharp step."""
        return self.timings[clip].sharp_step if self.opt.center is None else self.opt.center

    def reach(self, clip: str) -> Span:
        """Return the steps [first, last) that the representation reads around each frame of a clip."""
        reach = REPRESENTATIONS[self.opt.representation].reach
        return reach(self.opt.window, self.target_step(clip), self.timings[clip].exposure)

    def has(self, clip: str, frame: str) -> bool:
        """Return whether the `.dat` file existed at construction."""
        return frame in self._sizes.get(clip, ())

    def read(
        self, clip: str, frame: str, steps: Span, *, rows: Span | None = None, cols: Span | None = None
    ) -> np.ndarray:
        """Read steps, rows and columns (half-open, row 0 at the top) around a frame.

        Steps count from the start of the frame's own `.dat` file. In a continuous stream they may lie in neighbouring
        files; beyond the ends of the stream, `spike.edge` applies.

        Returns:
            (T, h, w) uint8, 0 or 1.

        Raises:
            UserError: a file is missing, empty or truncated, or the stream lacks a step; names clip and frame.
        """
        cut = self._timelines[clip].cut(frame, *steps)
        problem = self._edge_problem(cut, steps)
        if problem:
            raise UserError(f"clip {clip} frame {frame}: {problem}")
        if self._keep_files:
            self._packed.hold(len(cut.pieces))
        parts = [self._read_file(clip, at, (first, last), rows, cols) for at, first, last in cut.pieces]
        spikes = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return spikes if cut.is_whole else mirrored(spikes, cut.before, cut.after)

    def problems(self, clips: Clips) -> list[str]:
        """Check existence, size and reach of the frames' files, by their sizes alone.

        Returns:
            One line per clip and problem, naming the frames that have it.
        """
        return [line for clip, frames in clips.items() for line in self._problems(clip, frames)]

    def _problems(self, clip: str, frames: Sequence[str]) -> list[str]:
        sizes = self._sizes[clip]
        if not any(frame in sizes for frame in frames):
            return [self._unnamed(clip, frames[0], sizes)]
        alike: dict[str, list[str]] = {}  # problem without the file's name -> frames that have it
        for frame in frames:
            try:
                self._steps(clip, frame, sizes[frame] if frame in sizes else self.store.packed(clip, frame).size)
                problem = self.problem(clip, frame, self.reach(clip))
            except UserError as error:
                problem = str(error)
            if problem:
                alike.setdefault(problem.replace(self.store.where(clip, frame), "{where}"), []).append(frame)
        found = []
        for problem, (first, *others) in alike.items():
            names = ", ".join(others[:NAMED]) + ", ..." * (len(others) > NAMED)
            more = f" (and {len(others)} more of its {len(frames)} frames: {names})" if others else ""
            where = self.store.where(clip, first)
            found.append(f"clip {clip} frame {first}: {problem.replace('{where}', where)}{more}")
        return found

    def _unnamed(self, clip: str, frame: str, sizes: dict[str, int]) -> str:
        """Report that none of a clip's `.dat` files is named after a frame."""
        height, width = self.sensor_of(clip).size
        names = ", ".join(f"{name}.dat" for name in list(sizes)[:3]) + ", ..." * (len(sizes) > 3)
        where = self.store.where(clip, frame)
        line = f"clip {clip} frame {frame}: {where}: no such spike file, its folder holds {len(sizes)} .dat ({names}); "
        if len(sizes) > 1:
            return f"{line}files must be named after the frames; rename them"
        steps = next(iter(sizes.values())) * 8 / (height * width)
        return (
            f"{line}each frame needs its own, of {self._allowed(clip, frame)[0]} steps; this one has {steps:g} of "
            f"{height}x{width}: split it with read_spikes(.., steps=(first, last)) and write_spikes of "
            "utils.spike_loader"
        )

    def problem(self, clip: str, frame: str, steps: Span) -> str | None:
        """Return why steps around a frame, counted as in `read`, cannot be read; None if they can."""
        return self._edge_problem(self._timelines[clip].cut(frame, *steps), steps)

    def num_steps(self, clip: str, frame: str) -> int:
        """Return the number of steps of a frame's own `.dat` file, by its size at construction."""
        return self._timelines[clip].lengths[frame]

    def size_warning(self, clip: str, frame: str) -> str | None:
        """Return a warning if the bits of a file look like spikes of another size (H, W), else None."""
        size = self.sensor_of(clip).size
        likelier = likelier_size(self._bytes(clip, frame), *size)
        if not likelier:
            return None
        return "{}: looks like {}x{} spikes, not like {}x{}; check spike_h and spike_w".format(
            self.store.where(clip, frame), *likelier, *size
        )

    def _edge_problem(self, cut: Cut, steps: Span) -> str | None:
        """Return why wanted steps cannot be read; None if they can."""
        existing = sum(piece.last - piece.first for piece in cut.pieces)
        if cut.is_whole or (self.opt.edge == "mirror" and max(cut.before, cut.after) <= existing):
            return None
        first, last = steps[0] + cut.before, steps[1] - 1 - cut.after
        alone = "" if self.manifest is None or self.manifest.continuous else " (manifest.json: not continuous)"
        return (
            f"steps {steps[0]}..{steps[1] - 1} are needed, the stream has {first}..{last}{alone}; "
            "lower spike.window, change spike.center or set spike.edge to mirror"
        )

    def _read_file(self, clip: str, frame: str, steps: Span, rows: Span | None, cols: Span | None) -> np.ndarray:
        height, width, flipud, _, order = self.sensor_of(clip)
        try:
            packed = self._bytes(clip, frame)
            self._steps(clip, frame, packed.size)
            return decode(packed, height, width, steps=steps, rows=rows, cols=cols, flipud=flipud, bit_order=order)
        except UserError as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None

    def _bytes(self, clip: str, frame: str) -> np.ndarray:
        """Return the bytes of a `.dat` file, (n,) uint8."""
        return self._packed.get((clip, frame), partial(self.store.packed, clip, frame))

    def _evidence(self) -> Evidence:
        clip, files = next(iter(self._sizes.items()))
        frame, size = next(iter(files.items()))
        return Evidence(self.store.where(clip, frame), size)

    def _lengths(self, clip: str) -> dict[str, int]:
        """Return the steps of every file of a clip; a file of the wrong size counts with its expected steps."""
        lengths = {}
        height, width = self.sensor_of(clip).size
        for frame, size in self._sizes[clip].items():
            allowed = self._allowed(clip, frame)
            steps = size * 8 // (height * width)
            lengths[frame] = steps if steps in allowed else allowed[0]
        return lengths

    def _allowed(self, clip: str, frame: str) -> list[int]:
        """Return the numbers of steps that a frame's `.dat` file may have."""
        steps = self.timings[clip].num_steps(frame)
        if self.manifest is None and frame == self._last[clip]:
            return [steps, steps - GOPRO_SHORT_BY]
        return [steps]

    def _steps(self, clip: str, frame: str, size: int) -> int:
        """Compare a file's bytes with the steps of the clip's timing; return the number of steps."""
        height, width = self.sensor_of(clip).size
        allowed = self._allowed(clip, frame)
        for steps in allowed:
            if size * 8 == steps * height * width:
                return steps
        where, implied = self.store.where(clip, frame), self._implied(clip, size, allowed)
        try:
            found = steps_in(size, height, width, implied)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        raise UserError(
            f"{where} has {found} steps of {height}x{width}, expected {' or '.join(map(str, allowed))}; {implied}"
            "correct spike_h and spike_w, or prepare the spikes of this clip again"
        )

    def _implied(self, clip: str, size: int, allowed: list[int]) -> str:
        """Return the sizes that the clip's frames imply for a file of the wrong size, for a message; may be empty."""
        if self._frame_size is None:
            return ""
        try:
            frame = self._frame_size(clip)
        except UserError:  # reported elsewhere
            return ""
        found = [each for each in implied_sizes(size, frame, allowed) if each != self.sensor_of(clip).size]
        fitting = " or ".join(f"{h}x{w} ({size * 8 // (h * w)} steps)" for h, w in found)
        return f"the frames' {frame[0]}x{frame[1]} pixels imply {fitting}; " if fitting else ""
