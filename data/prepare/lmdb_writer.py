"""Write clips into LMDB folders that KAIR and BasicSR can read; see data/lmdb_store.py for the format.

An LMDB is built in `<target>.partial`, every value is read back and compared, meta_info.txt is written last, and then
the folder is renamed: a folder of the final name is complete. `.<target>.sources.json` beside it records size and times
of each source file, so that a later call compares the content of changed files only.
"""

import json
import logging
import mmap
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np

from data.clip_index import existing_folder
from data.layout import SPIKES, Split, gt_dir, instant_dir, lq_dir, spike_dir, subframe_dir
from data.lmdb_store import (
    DATA,
    META,
    Entry,
    LmdbStore,
    is_lmdb,
    key_of,
    lmdb_path,
    read_stamps,
    record_path,
    stamp_of,
)
from data.prepare.lmdb_sources import DatFiles, Files, NpyFiles, PngFiles
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import Manifest
from utils.processes import folder_lock
from utils.utils_error import UserError, counted, shown
from utils.utils_file import sync_folder, write_text
from utils.utils_progress import progress

LOG = logging.getLogger("spikevrt")

PARTIAL, OLD = ".partial", ".old"
MB = 1e6
_PAGE_HEADER = 16  # bytes used by LMDB in the first page of a value


class Job(NamedTuple):
    """One LMDB to write."""

    source: Files
    target: Path
    capacity: int


def create_lmdbs(
    dataset_root: Path, splits: Sequence[Split], *, force: bool = False, workers: int = 8, compression: int = 0
) -> None:
    """Write an LMDB beside each folder of a data set: sharp and blurred frames and, if there are any, spikes, stored
    light and sharp frames at other instants.

    Args:
        dataset_root: a folder as data.layout describes it.
        splits: train, test or both.
        force: rewrite existing LMDBs; otherwise they are compared with the folders and kept.
        workers: threads that read, encode and compare frames.
        compression: PNG level of the frames, 0 to 9.

    Raises:
        UserError: a folder is missing, an existing LMDB differs from it, or the disk is too small (nothing is written);
            or a file is damaged.
    """
    dataset_root = existing_folder(dataset_root, "--dataset-root")
    sources: list[Files] = []
    for split in splits:
        for folder in (gt_dir(dataset_root, split), lq_dir(dataset_root, split)):
            sources.append(PngFiles(existing_folder(folder, "--dataset-root"), compression))
        if (dataset_root / SPIKES).is_dir():
            folder = existing_folder(spike_dir(dataset_root, split), "--dataset-root")
            manifest = Manifest.load(folder)
            own = {clip: manifest.spike_size(clip) for clip in manifest.clips} if manifest else {}
            sources.append(DatFiles(folder, spike_size(folder), own))
        if (light := subframe_dir(dataset_root, split)).is_dir():
            sources.append(NpyFiles(light))
        if (instants := instant_dir(dataset_root, split)).is_dir():
            sources.append(PngFiles(instants, compression, in_time=False))
    write_lmdbs([(source, lmdb_path(source.root)) for source in sources], force=force, workers=workers)


def spike_size(dataroot_spike: Path) -> tuple[int, int]:
    """Return (H, W) of the sensor from manifest.json or config.yaml.

    Raises:
        UserError: neither exists.
    """
    described = Manifest.load(dataroot_spike) or SpikeConfig.load(dataroot_spike)
    if described is None:
        raise UserError(
            f"{dataroot_spike.parent}: has neither manifest.json nor config.yaml, expected one with spike_h and "
            "spike_w; prepare the data set first"
        )
    return described.spike_h, described.spike_w


def write_lmdbs(wanted: Sequence[tuple[Files, Path]], *, force: bool = False, workers: int = 8) -> None:
    """Check all LMDBs, sources and their target folders, then write one after the other.

    Raises:
        UserError: a target differs from its source, is not an LMDB, another process writes it, or the disk is too
            small.
    """
    jobs = []
    with ThreadPoolExecutor(max(1, workers)) as pool, ExitStack() as locks:
        for source, path in wanted:
            target = path.resolve()  # keeps a link to another disk
            current = is_current(source, target, force, pool)
            leftovers = [target.with_name(target.name + suffix) for suffix in (PARTIAL, OLD)]
            if current and not any(leftover.exists() for leftover in leftovers):
                continue
            lock = target.with_name(f".{target.name}{folder_lock.NAME}")
            locks.enter_context(folder_lock.acquire(lock, str(shown(target)), "wait until it ends"))
            for leftover in leftovers:
                shutil.rmtree(leftover, ignore_errors=True)
            if not current:
                jobs.append(Job(source, target, capacity(list(source.lengths()))))
        check_disk(jobs)
        for job in jobs:
            build(job, pool, chunk=2 * max(1, workers))


def is_current(source: Files, target: Path, force: bool, pool: ThreadPoolExecutor) -> bool:
    """Return whether the LMDB exists and is up to date.

    Raises:
        UserError: it differs from the source, or the target is not an LMDB.
    """
    if not target.exists():
        return False
    if not is_lmdb(target):
        raise UserError(f"{shown(target)}: is not an LMDB (no {DATA}), expected an LMDB or nothing; move it away")
    if force:
        return False
    store, again = LmdbStore(target), "--force writes it again"
    difference = find_difference(source, store, pool)
    if difference:
        raise UserError(f"{shown(target)}: {difference}; {again}")
    keys = keys_of(source)
    level = store.entry(*keys[0]).compression
    LOG.info("%s: up to date, %s of PNG level %d; %s", shown(target), counted(len(keys), "key"), level, again)
    return True


def find_difference(source: Files, store: LmdbStore, pool: ThreadPoolExecutor) -> str | None:
    """Compare an LMDB with its source: all names, and size and content of all changed files.

    A file with the recorded size and times is unchanged; without a record, all files are compared.
    """
    there, wanted = store.clips(), source.clips
    for clip in sorted(there.keys() | wanted.keys()):
        if there.get(clip) != wanted.get(clip):
            found, expected = (len(clips.get(clip, ())) for clips in (there, wanted))
            return f"has {found} frames of clip {clip}, which are not the {expected} in {source.root}"

    def difference(key: tuple[str, str]) -> str | None:
        found, size = store.entry(*key).size, source.size(*key)
        if found != size:
            return f"{'/'.join(key)} is {found}, but {size} in {source.root}"
        same = source.checksum(store.get(*key)) == source.value(*key).checksum
        return None if same else f"{'/'.join(key)} differs in content from {source.root}"

    known, now = read_stamps(store.root.resolve()), stamps_of(source, pool)
    changed = [key for key in keys_of(source) if known.get("/".join(key)) != now["/".join(key)]]
    if not changed:
        return None
    LOG.info("%s: comparing the %d of %d files that may have changed", shown(store.root), len(changed), len(now))
    found = progress(pool.map(difference, changed), total=len(changed), what="comparing", unit="key")
    return next((problem for problem in found if problem), None)


def stamps_of(source: Files, pool: ThreadPoolExecutor) -> dict[str, list[int]]:
    """Return size and times of all source files by key; call before reading them."""
    keys = keys_of(source)
    stamps = pool.map(lambda key: list(source.stamp(*key)), keys)
    return {"/".join(key): stamp for key, stamp in zip(keys, stamps, strict=True)}


def keys_of(source: Files) -> list[tuple[str, str]]:
    """List the keys (clip, frame) of a source, in order."""
    return [(clip, frame) for clip, frames in source.clips.items() for frame in frames]


def capacity(lengths: Sequence[int]) -> int:
    """Return the bytes of an LMDB with values of these lengths, each in its own pages, and the tree of keys."""
    page = mmap.PAGESIZE
    values = sum(-(-(length + _PAGE_HEADER) // page) for length in lengths)
    return (values + len(lengths) // 10 + 64) * page


def check_disk(jobs: Sequence[Job]) -> None:
    """Log how much will be written where.

    Raises:
        UserError: a disk has too little free space.
    """
    needed: dict[int, int] = {}
    for job in jobs:
        folder = job.target.parent
        disk, free = folder.stat().st_dev, shutil.disk_usage(folder).free
        needed[disk] = needed.get(disk, 0) + job.capacity
        count = counted(len(keys_of(job.source)), "key")
        LOG.info("%s: %s, %.1f MB to write", shown(job.target), count, job.capacity / MB)
        if free < needed[disk]:
            raise UserError(
                f"{shown(job.target)}: {free / MB:.1f} MB are free on its disk, {needed[disk] / MB:.1f} MB needed; "
                "free up space, use another disk, or a --compression above 0"
            )


def build(job: Job, pool: ThreadPoolExecutor, chunk: int) -> None:
    """Write one LMDB, `chunk` values at a time, and rename it to its final name at the end.

    Raises:
        UserError: a source file is damaged.
        RuntimeError: a value read back differs from the one written.
    """
    source, target = job.source, job.target
    partial = target.with_name(target.name + PARTIAL)
    partial.mkdir(parents=True)
    try:
        stamps = stamps_of(source, pool)
        written = write_values(job, partial, pool, chunk)
        check_values(source, partial, written, pool)
        lines = [f"{clip}/{e.name} ({','.join(map(str, e.size))}) {e.compression}\n" for clip, e, _ in written]
        write_text(partial / META, "".join(lines), names=True)
        sync_folder(partial)
        old = target.with_name(target.name + OLD)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
        write_text(record_path(target), json.dumps({"data": stamp_of(target / DATA), "files": stamps}) + "\n")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = (target / DATA).stat().st_size / MB
    LOG.info("%s: %s, %.1f MB", shown(target), counted(len(written), "key"), size)


def write_values(job: Job, folder: Path, pool: ThreadPoolExecutor, chunk: int) -> list[tuple[str, Entry, int]]:
    """Write all values; return clip, entry and checksum of each."""
    written = []
    keys = keys_of(job.source)
    # An unfinished LMDB is never used, so one sync at the end is enough.
    with (
        lmdb.open(os.fspath(folder), map_size=job.capacity, sync=False) as environment,
        progress(total=len(keys), what=f"writing {job.target.name}", unit="key") as bar,
    ):
        for start in range(0, len(keys), chunk):
            part = keys[start : start + chunk]
            values = list(pool.map(lambda key: job.source.value(*key), part))
            put(environment, {key_of(*key): value.data for key, value in zip(part, values, strict=True)})
            written += [(key[0], value.entry, value.checksum) for key, value in zip(part, values, strict=True)]
            bar.update(len(part))
        environment.sync(True)
    return written


def put(environment: lmdb.Environment, values: dict[bytes, np.ndarray]) -> None:
    """Write values in one transaction, enlarging the map if its estimated size was too small."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, data in values.items():
                    transaction.put(key, data.data)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        else:
            return


def check_values(
    source: Files, folder: Path, written: Sequence[tuple[str, Entry, int]], pool: ThreadPoolExecutor
) -> None:
    """Read every value back as a reader does and compare the checksums.

    Raises:
        RuntimeError: one differs.
    """

    def problem(item: tuple[str, Entry, int]) -> str | None:
        clip, entry, checksum = item
        key = key_of(clip, Path(entry.name).stem)
        with environment.begin(buffers=True) as transaction:
            value = transaction.get(key, b"")
            is_right = source.checksum(np.frombuffer(value, np.uint8)) == checksum
            return None if is_right else f"{clip}/{Path(entry.name).stem}"

    with lmdb.open(os.fspath(folder), readonly=True, lock=False) as environment:
        checked = progress(pool.map(problem, written), total=len(written), what="reading it back", unit="key")
        wrong = [key for key in checked if key]
    if wrong:
        raise RuntimeError(f"{folder}: {wrong[0]} is not what was written; the disk may be damaged")
