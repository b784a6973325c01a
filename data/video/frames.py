"""Reading clips out of video files: frame by frame, each exactly the one that its number says.

Frames are numbered in the order in which they are shown, whatever their times. A file is looked through once without
decoding it. After a jump a picture is known by its time stamp, so that it is the same one that reading in order gives.
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
WORTH_A_JUMP = 16  # frames; decoding fewer is quicker than to jump over them

# Decoders of a parent process. To free one would wait for the end of threads that a child does not have.
_LEFT_ALONE: list[Any] = []


class VideoFrames:
    """Frames of the video file `root`, or of the videos in the folder `root`, each a clip named by its stem.

    Frames are named by their numbers from 0 on. May be pickled, read after a fork and by several threads; one decoder
    is kept open, with the last frames that it gave.

    What makes the frames of a file other than they seem (see Doubt) is said once, or refused.

    Args:
        root: the file or folder.
        filename_tmpl: format of a frame's number in its name.
        as_light: whether the frames are to be taken as light, one moment each; a file whose frames are not is refused.
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
        """Return how some frames of a clip are shown; the first of them when the first of the file is."""
        return self._index(clip).playback().part([self._number(clip, frame) for frame in frames])

    def read(self, clip: str, frame: str) -> np.ndarray:
        """See Frames."""
        path, number = self._path(clip), self._number(clip, frame)
        if self._process != os.getpid():
            _LEFT_ALONE.append(self._decoder)
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
                    f"{index.count} whole frames; copy the file again or leave the clip out"
                ) from None
            if self._decoder.interlaced is not None:
                self._look_at(clip, self._decoder.interlaced)
            return picture

    def _renew(self) -> None:
        """Start without a decoder: a child has its parent's place in the file, and perhaps a lock that is held."""
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
            self._look_at(clip, doubt)
        return index

    def _look_at(self, clip: str, doubt: Doubt) -> None:
        """Say a doubt about a clip, or refuse the clip for it."""
        if self._as_light and not doubt.shows_light:
            raise UserError(f"clip {clip}: {self._path(clip)} {doubt.what}; {doubt.cure}")
        say_once(f"{self._path(clip)} {doubt.what}. It is read as it is; better {doubt.cure}")

    def _number(self, clip: str, frame: str) -> int:
        count = self._index(clip).count
        if not frame.isdecimal() or int(frame) >= count:
            raise UserError(
                f"clip {clip} frame {frame}: {self._path(clip)} has no such frame, expected {0:{self._tmpl}} to "
                f"{count - 1:{self._tmpl}}; give frames those names"
            )
        return int(frame)


class DamageError(ValueError):
    """A picture that cannot be had; the message says why."""


class Decoder:
    """The pictures of one file by number; reading in order, with short ways back, decodes each once.

    Args:
        path: the file.
        index: of the file.
    """

    def __init__(self, path: Path, index: VideoIndex) -> None:
        self.path, self.index = path, index
        self.interlaced: Doubt | None = None  # whether a picture was, though the first one is not
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._damage: dict[int, str] = {}
        self._converter: Converter | None = None
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._ready: deque[Any] = deque()  # decoded pictures that were not asked for yet
        self._next, self._jumped = 0, False  # number of the next picture; whether decoding began in the middle
        self._broken: int | None = None  # damaged frame whose key frame has not been left yet
        self._restart()

    def picture(self, number: int) -> np.ndarray:
        """Return a picture, (H, W, 3) uint8, RGB; not to be written into.

        Raises:
            DamageError: it, or one that it builds on, cannot be decoded.
        """
        if number in self.kept:
            return self.kept[number]
        if number not in self._damage and not self._next <= number < self._next + WORTH_A_JUMP:
            self._jump(number)
        while number not in self.kept:
            if number in self._damage:
                raise DamageError(self._damage[number])
            self._step(number)
        return self.kept[number]

    def _step(self, wanted: int) -> None:
        """Take the next picture; what is missing before it is noted, and it is kept if near enough to the wanted."""
        frame = self._frame()
        number = self.index.count if frame is None else self._number_of(frame)
        if number < self._next:  # after a jump: it builds on pictures before the place
            return
        is_corrupt = frame is not None and frame.is_corrupt
        if self._jumped and (number > self._next or is_corrupt):
            self._restart()  # not every key frame is a place to begin at
            return
        if number > self._next:
            self._note(self._next, number, "it yields no picture" if frame is not None else "the file ends before it")
        if is_corrupt:
            self._note(number, number + 1, "the decoder says that it is corrupt")
        self._next = number + 1
        if frame is not None and number not in self._damage and number > wanted - WORTH_A_JUMP:
            self._keep(number, frame)

    def _keep(self, number: int, frame: "av.VideoFrame") -> None:
        if frame.interlaced_frame and self.interlaced is None:
            self.interlaced = interlaced(self.path, self._stream.codec_context)
        try:
            if self._converter is None or self._converter.kind != Converter.kind_of(frame):
                self._converter = Converter(frame)
            image: np.ndarray = self._converter(frame).to_ndarray()
        except self._errors as error:
            self._damage[number] = f"no way from {frame.format.name} to RGB: {reason_of(error)}"
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
                continue  # "as before" in an AVI; a decoder would take it for the end
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
        return -1 if number is None else number  # one that the file says not to show

    def _fail(self, number: int, reason: str) -> None:
        """Go on after a packet that cannot be decoded, not trusting what follows it up to the next key frame."""
        if not self._jumped:
            self._note(number, number + 1, reason)
            self._broken = number
        elif number >= self._next:
            self._restart()  # to know that it is no matter of the jump

    def _note(self, first: int, stop: int, reason: str) -> None:
        """Note damaged pictures, and that those between them and the next key frame build on them."""
        for number in range(first, stop):
            self._damage.setdefault(number, reason)
        for number in range(stop, self.index.next_key(stop)):
            self._damage.setdefault(number, f"it builds on frame {stop - 1}, which is damaged: {reason}")

    def _jump(self, number: int) -> None:
        """Go to the last key frame before a picture, unless reading on is as good."""
        place = self.index.place_before(number)
        if place and self._next <= number and place.number <= self._next:
            return
        if place and place.number:
            # The first is exact where it works, the second comes out a key frame earlier in some files.
            if not any(self._seek(time, number) for time in (self.index.times[place.number], place.decode_time)):
                self._restart()
        elif number < self._next:
            self._restart()

    def _seek(self, time: int, number: int) -> bool:
        """Go to the key frame that a file has for a time; False if it is none or comes after the wanted picture."""
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
        self._next, self._jumped, self._broken = landed, True, None
        return True

    def _restart(self) -> None:
        """Go to the beginning of the file."""
        import av

        if self._container is not None:
            self._container.close()
        self._errors = av.FFmpegError
        self._container, self._stream = open_video(self.path)
        self._packets = self._container.demux(self._stream)
        self._ready.clear()
        self._next, self._jumped, self._broken = 0, False, None
