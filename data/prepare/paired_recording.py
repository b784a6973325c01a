"""A recording of two cameras, paired: frames with the steps of their exposures, fitted to each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.layout import Frame
from data.prepare.cutting import Cuts, Fit
from data.prepare.pairing import Light, Reader, Sample, Streams
from data.prepare.recordings import Source
from data.spike.manifest import Manifest
from utils.utils_error import UserError


@dataclass(frozen=True)
class Recording:
    """Frames and spikes that belong together."""

    source: Source  # its names are the frames to use
    sharp: Source | None
    streams: Streams
    cuts: Cuts
    fit: Fit

    def spikes(self, reader: Reader, at: int) -> np.ndarray:
        """Return the piece of a frame, (t, h, w) uint8.

        Raises:
            UserError: no pixel fires during the exposure.
        """
        (first, last), exposure = self.cuts.spans[at], slice(*self.cuts.exposure)
        spikes = self.fit.spikes(reader(at, first, last))
        if not spikes[exposure].any():
            raise UserError(
                f"frame {self.source.names[at]}: no pixel fires in its exposure, steps {first + exposure.start} to "
                f"{first + exposure.stop - 1}; check the times, or leave the frame out with --range"
            )
        return spikes

    def sample(self, reader: Reader, at: int) -> Sample:
        """Return a frame with the mean of its spikes."""
        exposed = self.spikes(reader, at)[slice(*self.cuts.exposure)]
        return Sample(exposed.mean(axis=0, dtype=np.float32), self.rgb(at))

    def rgb(self, at: int) -> np.ndarray:
        """Return a blurred frame, fitted."""
        return self.fit.frame(self.source.read(self.source.names[at]))

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the set."""
        reader = self.streams.reader()
        for at, name in enumerate(self.source.names):
            sharp = self.fit.frame(self.sharp.read(name)) if self.sharp else None
            yield Frame(self.rgb(at), sharp, self.spikes(reader, at))


def make_manifest(recording: Recording, light: Light, clock_hz: float) -> Manifest:
    """Return the manifest of the recording's cameras, without clips."""
    fit = recording.fit
    height, width = fit.sensor.height, fit.sensor.width
    return Manifest(
        spike_h=height,
        spike_w=width,
        rgb_h=height * fit.ratio,
        rgb_w=width * fit.ratio,
        flipud=True,
        clock_hz=clock_hz,
        rate_at_white=light.rate_at_white,
        transfer=light.transfer,
        noise="sensor",
        continuous=recording.cuts.continuous,
        clips={},
    )


def times_table(recording: Recording) -> str:
    """Return times.csv: each frame's name in the set and in the source, and its exposure in steps of the stream."""
    first, last = recording.cuts.exposure
    rows = [
        f"{at:06d},{name},{start + first},{start + last}"
        for at, (name, (start, _)) in enumerate(zip(recording.source.names, recording.cuts.spans, strict=True))
    ]
    return "\n".join(["frame,source,start_steps,end_steps", *rows]) + "\n"
