"""Detect videos whose frames are misleading: interlacing, HDR, other colour primaries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from utils.utils_error import UserError

# Code points of ISO/IEC 23091-2 and FFmpeg; those not listed look right as BT.709.
_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 16: "PQ", 17: "SMPTE ST 428", 18: "HLG"}
_PRIMARIES = {9: "BT.2020", 10: "CIE XYZ", 11: "DCI-P3", 12: "Display P3"}
_UNKNOWN_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "a matrix of its primaries",
    13: "a matrix of its primaries",
    14: "ICtCp",
    15: "IPT-PQ-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_HDR = {16, 18}
_FIELDS = {2: "top field first", 3: "bottom field first", 4: "bottom field first", 5: "top field first"}
_TO_BT709 = "zscale=p=bt709:t=bt709:m=bt709"
_TONE_MAP = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)


class Doubt(NamedTuple):
    """A property of a video that makes its frames misleading.

    Attributes:
        what: describes it; follows the file name in messages.
        cure: what to do.
        shows_light: whether each frame still shows the light of one moment, in the sRGB curve.
    """

    what: str
    cure: str
    shows_light: bool = False


def interlaced(path: Path, context: Any) -> Doubt:
    """Return the doubt that a file is interlaced, with the field order if the decoder's context knows it."""
    order = _FIELDS.get(int(getattr(context, "field_order", 0)))  # not in older PyAV
    return Doubt(
        f"is interlaced{f' ({order})' if order else ''}: each frame mixes the rows of two moments",
        f"deinterlace it first: {_ffmpeg(path, 'bwdif')}",
    )


def colour_doubts(path: Path, context: Any) -> Iterator[Doubt]:
    """Yield doubts about colours that, with the matrix undone, are not those of BT.709 and sRGB."""
    transfer, gamut = int(context.color_trc), _PRIMARIES.get(int(context.color_primaries))
    if transfer in _TRANSFERS:
        names = ", ".join(name for name in (_TRANSFERS[transfer], gamut) if name)
        kind = f"is HDR ({names})" if transfer in _HDR else f"has another tone curve ({names})"
        cure = _ffmpeg(path, _TONE_MAP if transfer in _HDR else _TO_BT709)
        yield Doubt(f"{kind}: read as BT.709, its colours are wrong", f"convert it first: {cure}")
    elif gamut:
        what = f"has colours of {gamut}: read as BT.709, they look pale"
        yield Doubt(what, f"convert it first: {_ffmpeg(path, _TO_BT709)}", shows_light=True)


def check_matrix(path: Path, frame: Any) -> None:
    """Check that a picture's colours can be converted to RGB.

    Raises:
        UserError: they cannot; names their matrix and what to do.
    """
    if matrix := _UNKNOWN_MATRICES.get(int(frame.colorspace)):
        raise UserError(
            f"{path} has colours in {matrix}, which FFmpeg's scale filter cannot convert to RGB; convert it first: "
            f"{_ffmpeg(path, _TO_BT709)}"
        )


def _ffmpeg(path: Path, filters: str) -> str:
    return f"ffmpeg -i {path.name} -vf {filters} -c:v ffv1 {path.stem}_new.mkv"
