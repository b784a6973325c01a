"""List every defect of a data set, clip by clip and frame by frame."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from data.clip_index import Clips, existing_folder, find_clips
from data.frame_store import FrameStore, store_of
from data.geometry import size_text
from data.mixture import Mixture, OneOfSeveral, WithoutSpikes
from data.select_dataset import define_Dataset
from data.spike.align.warning import warn_of_clips
from data.spike.doctor.orientation import match
from data.spike.firing import VERDICTS, only_bit
from data.spike.manifest import Manifest
from data.spike.planes import REPRESENTATIONS
from data.spike.reader import SpikeReader, clip_timing
from data.spike.source import SpikeSource
from data.spike.store import open_store
from data.spike.texture import bit_order, mean_plane
from options.schema import DatasetOpt, DatasetsOpt
from options.schema_data import ROUND
from utils.utils_colour import linear_to_srgb
from utils.utils_error import ProblemsError, UserError, counted
from utils.utils_progress import progress

LOG = logging.getLogger("spikevrt")

# Correlation of a blurred frame with the mean of its spikes; true pairs reach more than 0.9.
UNRELATED_BELOW = 0.2
CONTRAST = 0.02  # standard deviation; pictures with less are not compared
LISTED = 20  # most defects in the log
FRAME_KEYS = ("dataroot_lq", "dataroot_gt")


def check_dataset(opt: DatasetOpt, upscale: int = 1, *, full: bool = True) -> list[str]:
    """List every defect of a data set, one line each, naming clip and frame where they apply.

    The fast check compares names, counts and file sizes. The full check also decodes every frame and `.dat` file and
    looks for wrong picture sizes, spikes that never or always fire, are upside down or belong to another frame, a wrong
    bit order, and a size (H, W) that the bits contradict. Sharp frames are `upscale` times as large as blurred ones.
    """
    defects: list[str] = []
    stores: dict[str, FrameStore] = {}
    clips: Clips = {}
    keys = [key for key in FRAME_KEYS if key == "dataroot_lq" or opt.dataroot_gt is not None]
    for key in keys:
        with _noting(defects):
            root = existing_folder(getattr(opt, key), f"{opt.name}: {key}")
            stores[key] = store_of(opt.model_copy(update={"cache_data": False}), root, key)
            if key == "dataroot_lq":
                clips = find_clips(root, opt.filename_ext, opt.meta_info_file, opt.filename_tmpl)
    if not clips:
        return defects
    for store in stores.values():
        defects += store.problems(clips, exact=opt.meta_info_file is None)
    stores = {key: store for key, store in stores.items() if not store.root_problems(clips)}
    reader = _checked_reader(opt, clips, defects, stores.get("dataroot_lq")) if opt.uses_spikes else None
    if full:
        total = sum(map(len, clips.values()))
        with ThreadPoolExecutor() as pool, progress(total=total, what=opt.name) as bar:
            for clip, frames in clips.items():
                found = pool.map(partial(frame_defects, clip, stores=stores, reader=reader, upscale=upscale), frames)
                for problems in found:
                    defects += problems
                    bar.update()
        if reader and "dataroot_lq" in stores and not defects:
            warn_of_clips(opt, clips, stores["dataroot_lq"], reader)
    if not defects:
        with _noting(defects):
            define_Dataset(opt, upscale)
    return list(dict.fromkeys(defects))


def open_dataset(opt: DatasetOpt, upscale: int = 1) -> Any:
    """Build a data set as `define_Dataset` does; if that fails, log all defects.

    Raises:
        UserError: names, counts or file sizes are wrong; the message has the first defect.
    """
    try:
        return define_Dataset(opt, upscale)
    except UserError:
        defects = check_dataset(opt, upscale, full=False)
        if len(defects) < 2:
            raise
    for defect in defects[:LISTED]:
        LOG.error(defect)
    if len(defects) > LISTED:
        LOG.error("... scripts/check_data.py --fast lists all %d", len(defects))
    raise ProblemsError(defects)


def _open_firing(opt: DatasetOpt, upscale: int) -> Any:
    """Do what `open_dataset` does, and warn of spikes that show nothing; UserError if a clip has no others."""
    data_set = open_dataset(opt, upscale)
    spikes: SpikeSource | None = getattr(data_set, "spikes", None)
    if spikes is not None:
        spikes.check_firing()
    return data_set


def open_test_set(opt: DatasetsOpt, upscale: int = 1) -> Any:
    """Build the test set as `open_dataset` does; without spikes it shows dropped ones, if the options say so.

    Raises:
        UserError: as `open_dataset`, or no frame of a clip has spikes that show anything.
    """
    assert opt.test is not None
    test_set, like = _open_firing(opt.test, upscale), opt.with_spikes
    if "test" in opt.dropping and like is not None:
        manifest = Manifest.load(str(like.dataroot_spike))
        is_linear = manifest is not None and manifest.transfer == "linear"
        is_counted = REPRESENTATIONS[like.spike.representation].gives == "counts"
        test_set.drop_spikes(like.spike_channels, is_linear=is_linear and is_counted)
        LOG.info("datasets.test (%s): has no spikes; planes of zeros stand for them, as in training", opt.test.name)
    return test_set


def open_train_sets(opt: DatasetsOpt, upscale: int = 1) -> Mixture:
    """Build the training sets, each as `open_dataset` does; beside sets with spikes, those without show dropped ones.

    Raises:
        UserError: as `open_test_set`; of several sets it names the block.
    """
    blocks, sets = opt.train_sets, {}
    for name, block in blocks.items():
        try:
            sets[name] = _open_firing(block, upscale)
        except UserError as error:
            if len(blocks) == 1:
                raise
            raise UserError(f"datasets.{name}: {error}") from None
    dropping = sets.keys() & opt.dropping
    if dropping:
        like = next(sets[name] for name in blocks if name not in dropping)
        sets |= {name: WithoutSpikes(sets[name], like) for name in dropping}
    labels = {name: f"datasets.{name} ({block.name})" for name, block in blocks.items()}
    if len(blocks) > 1:
        sets = {name: OneOfSeveral(sets[name], label) for name, label in labels.items()}
    mixture = Mixture(list(sets.values()), [block.weight for block in blocks.values()])
    if len(blocks) > 1:
        for (name, block), share in zip(blocks.items(), mixture.per_round, strict=True):
            spikes, samples = "" if block.uses_spikes else ", without spikes", counted(len(sets[name]), "sample")
            LOG.info("%s: %s%s, %.1f %% of batches", labels[name], samples, spikes, 100 * share / ROUND)
    return mixture


def frame_defects(
    clip: str, frame: str, *, stores: dict[str, FrameStore], reader: SpikeReader | None, upscale: int
) -> list[str]:
    """Read all files of one frame and list their defects; missing files are skipped. `stores` are by option key."""
    defects: list[str] = []
    pictures: dict[str, np.ndarray] = {}
    for key, store in stores.items():
        if store.has(clip, frame):
            with _noting(defects):
                pictures[key] = store.read(clip, frame)
    sizes = {key: picture.shape[:2] for key, picture in pictures.items()}
    if len(sizes) == len(FRAME_KEYS):
        (height, width), gt = (sizes[key] for key in FRAME_KEYS)
        if gt != (height * upscale, width * upscale):
            found, wanted = size_text(gt), size_text((height * upscale, width * upscale))
            defects.append(f"clip {clip} frame {frame}: the sharp frame is {found}, expected {wanted}; restore it")
    if reader and reader.has(clip, frame):
        with _noting(defects):
            defects += spike_defects(clip, frame, reader, pictures.get("dataroot_lq"))
    return defects


def spike_defects(clip: str, frame: str, reader: SpikeReader, blur: np.ndarray | None) -> list[str]:
    """Read the whole `.dat` file of one frame and list its defects; UserError if it cannot be read.

    `blur` is the blurred frame, (H, W, 3) uint8, RGB, or None.
    """
    spikes = reader.read(clip, frame, (0, reader.num_steps(clip, frame)))
    found: list[str | None] = []
    if (bit := only_bit(spikes, 1)) is not None:
        found.append(VERDICTS[bit].format(f"of its {len(spikes)} steps"))
    else:
        found += [reader.size_warning(clip, frame), _order_defect(clip, frame, reader)]
        if blur is not None:
            found.append(_pairing_defect(reader.exposed(clip, frame), blur, reader))
    return [f"clip {clip} frame {frame}: {reader.store.where(clip, frame)}: {defect}" for defect in found if defect]


def _order_defect(clip: str, frame: str, reader: SpikeReader) -> str | None:
    height, width = reader.sensor_of(clip).size
    looks = bit_order(mean_plane(reader.store.packed(clip, frame), height * width // 8))
    if looks in (None, reader.sensor.bit_order):
        return None
    return f'its bits look like bit_order "{looks}", but are read as "{reader.sensor.bit_order}"; correct the manifest'


def _pairing_defect(exposed: np.ndarray, blur: np.ndarray, reader: SpikeReader) -> str | None:
    """Compare the mean rate over the exposure, (h, w), with the blurred frame."""
    seen = exposed / np.float32(reader.sensor.rate_at_white)
    if reader.is_linear:
        seen = linear_to_srgb(np.clip(seen, 0, 1))
    if min(float(blur.std()) / 255, seen.std()) < CONTRAST:
        return None
    found = match(seen, blur)
    if found.best not in ("as_is", None):
        return (
            f"it is {found.best.replace('_', ' ')} relative to the blurred frame: correlation {found.as_is:.2f} as "
            f"read, {max(found):.2f} when corrected; correct flipud in the manifest"
        )
    if found.as_is < UNRELATED_BELOW:
        return (
            f"it does not match the blurred frame (correlation {found.as_is:.2f}, expected near 1); does it belong to "
            "another frame, or is the size wrong?"
        )
    return None


def _checked_reader(opt: DatasetOpt, clips: Clips, defects: list[str], lq: FrameStore | None) -> SpikeReader | None:
    """Open the spikes of all readable clips; note the defects of the others and wrong file sizes."""
    with _noting(defects):
        root = existing_folder(opt.dataroot_spike, f"{opt.name}: dataroot_spike")
        manifest, store = Manifest.load(root), open_store(root, clips)
        sound = {}
        for clip, frames in clips.items():
            with _noting(defects):
                store.sizes(clip)
                clip_timing(manifest, clip)
                sound[clip] = frames
        if not sound:
            return None
        reader = SpikeReader(opt, sound, (lambda clip: lq.size(clip, sound[clip][0])) if lq else None)
        defects += reader.problems(sound)
        return reader
    return None


@contextmanager
def _noting(defects: list[str]) -> Iterator[None]:
    """Add a UserError to the list instead of raising it."""
    try:
        yield
    except ProblemsError as error:
        defects += error.problems
    except UserError as error:
        defects.append(str(error))
