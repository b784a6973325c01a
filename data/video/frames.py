"""Read clips from video files, frame-exactly.

Frames are numbered in display order, whatever their times. A file is indexed once without decoding. After a seek a
picture is identified by its time stamp, so seeking and reading in order give the same picture.
"""

import itertools
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.clip_index import video_files
from data.image_folders import VIDEO_SUFFIXES
from data.video.doubts import Doubt, interlaced
from data.video.index import VideoIndex, index_of, open_video, reason_of
from utils.utils_error import UserError, say_once
from utils.utils_file import own_name
from utils.utils_video import Converter, Playback

if TYPE_CHECKING:
    import av

KEPT_FRAMES, KEPT_BYTES, KEPT_LEAST = 64, 256 * 2**20, 8
WORTH_A_SEEK = 16  # frames; decoding fewer is faster than seeking

# Decoders of the parent process, kept alive: freeing one would wait for threads that a forked child does not have.
_PARENTS_DECODERS: list[Any] = []


class VideoFrames:
    """Frames of the video file `root`, or of the videos in the folder `root`, each a clip named by its stem.

    Frames are named by their numbers, from 0. Can be pickled, and read after a fork and from several threads; one
    decoder stays open, with its last frames.

    A file with misleading frames (see Doubt) causes one warning, or an error.

    Args:
        root: the file or folder.
        filename_tmpl: format of a frame's number in its name.
        as_light: refuse files whose frames do not show the light of one moment each.
    """

    def __init__(self, root: Path, filename_tmpl: str = "06d", *, as_light: bool = False) -> None:
        self.root, self._tmpl, self._as_light = root, filename_tmpl, as_light
        self._paths = video_files(root)
        self.is_one_clip = root.is_file()
        self._decoder: Decoder | None = None
        self._renew()

    def clips(self) -> list[str]:
        """See Frames."""
        return [] if self.is_one_clip else list(self._paths)

    def names(self, clip: str) -> set[str]:
        """See Frames."""
        return {f"{number:{self._tmpl}}" for number in range(self._index(clip).count)}

    def where(self, clip: str) -> str:
        """See Frames."""
        own = own_name(clip, self._paths)
        return str(next(iter(self._paths.values())) if self.is_one_clip else self._paths.get(own, self.root))

    def encoded(self, clip: str, frame: str) -> None:
        """See Frames."""
        return

    def untaken(self, clip: str) -> str:
        """See Frames."""
        return ""

    def file(self, clip: str, frame: str) -> Path:
        """See Frames."""
        return self._path(clip)

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """See Frames; that of the first frame."""
        self._number(clip, frame)
        return self._index(clip).size

    def playback(self, clip: str, frames: Sequence[str]) -> Playback:
        """Return how some frames of a clip are shown; the first one starts at the time of the file's first frame."""
        return self._index(clip).playback().part([self._number(clip, frame) for frame in frames])

    def read(self, clip: str, frame: str) -> np.ndarray:
        """See Frames."""
        path, number = self._path(clip), self._number(clip, frame)
        if self._process != os.getpid():
            _PARENTS_DECODERS.append(self._decoder)
            self._renew()
        index = self._index(clip)
        with self._lock:
            if self._decoder is None or self._decoder.index is not index:
                self._decoder = Decoder(path, index)
            try:
                picture = self._decoder.picture(number)
            except DamageError as error:
                raise UserError(
                    f"clip {clip} frame {frame}: {path} cannot be decoded there ({error}), expected "
                    f"{index.count} intact frames; copy the file again or leave the clip out"
                ) from None
            if self._decoder.interlaced is not None:
                self._handle(clip, self._decoder.interlaced)
            return picture

    def _renew(self) -> None:
        """Drop the decoder and lock: a forked child shares its parent's file position, and the lock may be held."""
        self._process, self._lock = os.getpid(), threading.Lock()
        self._decoder = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_process", "_lock", "_decoder")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._renew()

    def _path(self, clip: str) -> Path:
        if not self.is_one_clip and own_name(clip, self._paths) not in self._paths:
            raise UserError(
                f"clip {clip}: {self.root} has no video {clip} ({', '.join(VIDEO_SUFFIXES)}); every clip needs one "
                "of the same name"
            )
        return Path(self.where(clip))

    def _index(self, clip: str) -> VideoIndex:
        index = index_of(clip, self._path(clip))
        for doubt in index.doubts:
            self._handle(clip, doubt)
        return index

    def _handle(self, clip: str, doubt: Doubt) -> None:
        """Warn of a doubt about a clip, or refuse the clip."""
        if self._as_light and not doubt.shows_light:
            raise UserError(f"clip {clip}: {self._path(clip)} {doubt.what}; {doubt.cure}")
        say_once(f"{self._path(clip)} {doubt.what}. It is read as it is; better {doubt.cure}")

    def _number(self, clip: str, frame: str) -> int:
        count = self._index(clip).count
        if not frame.isdecimal() or int(frame) >= count:
            raise UserError(
                f"clip {clip} frame {frame}: {self._path(clip)} has no such frame, expected {0:{self._tmpl}} to "
                f"{count - 1:{self._tmpl}}; rename the frames"
            )
        return int(frame)


class DamageError(ValueError):
    """A picture cannot be decoded; the message says why."""


class Decoder:
    """The pictures of one file by number; reading in order, with short steps back, decodes each once.

    Args:
        path: the file.
        index: the file's index.
    """

    def __init__(self, path: Path, index: VideoIndex) -> None:
        self.path, self.index = path, index
        self.interlaced: Doubt | None = None  # set if a later picture is interlaced, though the first is not
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._damage: dict[int, str] = {}
        self._converter: Converter | None = None
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._ready: deque[Any] = deque()  # decoded pictures not yet taken
        self._next, self._sought = 0, False  # number of the next picture; whether decoding began in the middle
        self._broken: int | None = None  # damaged frame since the last key frame
        self._restart()

    def picture(self, number: int) -> np.ndarray:
        """Return a picture, (H, W, 3) uint8, RGB; do not modify.

        Raises:
            DamageError: it, or one that it depends on, cannot be decoded.
        """
        if number in self.kept:
            return self.kept[number]
        if number not in self._damage and not self._next <= number < self._next + WORTH_A_SEEK:
            self._go_to(number)
        while number not in self.kept:
            if number in self._damage:
                raise DamageError(self._damage[number])
            self._step(number)
        return self.kept[number]

    def _step(self, wanted: int) -> None:
        """Take the next picture, note missing ones before it, and keep it if it is near the wanted one."""
        frame = self._frame()
        number = self.index.count if frame is None else self._number_of(frame)
        if number < self._next:  # after a seek: it depends on pictures before the key frame
            return
        is_corrupt = frame is not None and frame.is_corrupt
        if self._sought and (number > self._next or is_corrupt):
            self._restart()  # decoding cannot begin at every key frame
            return
        if number > self._next:
            self._note(self._next, number, "it yields no picture" if frame is not None else "the file ends before it")
        if is_corrupt:
            self._note(number, number + 1, "the decoder reports it as corrupt")
        self._next = number + 1
        if frame is not None and number not in self._damage and number > wanted - WORTH_A_SEEK:
            self._keep(number, frame)

    def _keep(self, number: int, frame: "av.VideoFrame") -> None:
        if frame.interlaced_frame and self.interlaced is None:
            self.interlaced = interlaced(self.path, self._stream.codec_context)
        try:
            if self._converter is None or self._converter.kind != Converter.kind_of(frame):
                self._converter = Converter(frame)
            image: np.ndarray = self._converter(frame).to_ndarray()
        except self._errors as error:
            self._damage[number] = f"{frame.format.name} cannot be converted to RGB: {reason_of(error)}"
            return
        image = np.ascontiguousarray(np.rot90(image, self.index.turns))
        image.setflags(write=False)
        self.kept[number] = image
        while len(self.kept) > max(KEPT_LEAST, min(KEPT_FRAMES, KEPT_BYTES // image.nbytes)):
            self.kept.popitem(last=False)

    def _frame(self) -> "av.VideoFrame | None":
        """Decode until there is a picture; None at the end of the file."""
        while not self._ready:
            try:
                packet = next(self._packets, None)
            except self._errors as error:
                self._fail(self._next, reason_of(error))
                continue
            if packet is None:
                return None
            if not packet.size and packet.dts is not None:
                continue  # a repeated frame in an AVI; a decoder would take it for the end
            number = self.index.number(packet.pts)
            if packet.is_keyframe:
                self._broken = None
            elif self._broken is not None and number is not None and number < self._broken:
                self._damage.setdefault(number, self._damage[self._broken])
            try:
                self._ready.extend(packet.decode())
            except self._errors as error:
                self._fail(self._next if number is None else number, reason_of(error))
        return self._ready.popleft()

    def _number_of(self, frame: "av.VideoFrame") -> int:
        if not self.index.times:
            return self._next
        number = self.index.number(frame.pts)
        return -1 if number is None else number  # a picture that the file does not show

    def _fail(self, number: int, reason: str) -> None:
        """Note a packet that cannot be decoded, and distrust the pictures up to the next key frame."""
        if not self._sought:
            self._note(number, number + 1, reason)
            self._broken = number
        elif number >= self._next:
            self._restart()  # to rule out the seek as the cause

    def _note(self, first: int, stop: int, reason: str) -> None:
        """Note damaged pictures, and those up to the next key frame, which depend on them."""
        for number in range(first, stop):
            self._damage.setdefault(number, reason)
        for number in range(stop, self.index.next_key(stop)):
            self._damage.setdefault(number, f"it depends on frame {stop - 1}, which is damaged: {reason}")

    def _go_to(self, number: int) -> None:
        """Seek to the last key frame before a picture, unless reading on is as fast."""
        place = self.index.place_before(number)
        if place and self._next <= number and place.number <= self._next:
            return
        if place and place.number:
            # The first time is exact where it works; the second lands one key frame early in some files.
            if not any(self._seek(time, number) for time in (self.index.times[place.number], place.decode_time)):
                self._restart()
        elif number < self._next:
            self._restart()

    def _seek(self, time: int, number: int) -> bool:
        """Seek to the key frame before a time; False if that fails or lands after the wanted picture."""
        try:
            self._container.seek(time, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next((packet for packet in packets if packet.size), None)
        except self._errors:
            return False
        landed = None if first is None or not first.is_keyframe else self.index.number(first.pts)
        if first is None or landed is None or landed > number:
            return False
        self._packets = itertools.chain([first], packets)
        self._ready.clear()
        self._next, self._sought, self._broken = landed, True, None
        return True

    def _restart(self) -> None:
        """Reopen the file at its beginning."""
        import av

        if self._container is not None:
            self._container.close()
        self._errors = av.FFmpegError
        self._container, self._stream = open_video(self.path)
        self._packets = self._container.demux(self._stream)
        self._ready.clear()
        self._next, self._sought, self._broken = 0, False, None
