"""Look at parts of the installation in a process that may crash; scripts/doctor.py starts it.

python scripts/doctor_probes.py import:numpy gpu triton video sets weights

Prints the lines of each part as JSON. A part that cannot be looked at ends the process with its error.
"""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils.processes.host_memory import GIB
from utils.report.doctor_page import MARK, OK, RED, WARNING, Line
from utils.utils_cli import Parser
from utils.utils_error import UserError, counted

if TYPE_CHECKING:
    from data.layout import Split
    from options.schema import DatasetOpt

DATASETS, OFFICIAL = Path("datasets"), Path("model_zoo/vrt")  # in the project's folder
RECIPE = Path("options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json")  # the launchers' default
SLOW = "training VRT, which takes weeks on a CPU"
USE = "training or testing with it"
TEMPORARY = "writing videos, and libraries that need temporary files"
CHECK = "python scripts/check_data.py --fast --opt CONFIG.json (lists all defects of the sets in CONFIG.json)"
PREPARE = "./launch_train.sh --prepare-data --gopro-root P --spike-root P"


def pip(packages: str) -> str:
    """Return the command that installs packages again."""
    return f"{sys.executable} -m pip install --force-reinstall {packages}"


def gpu() -> list[Line]:
    """What PyTorch sees of the graphics cards."""
    import torch

    toolkit = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    can_use = bool(torch.version.cuda or torch.version.hip)
    lines = [Line("PyTorch", OK, f"{torch.__version__}, built for {toolkit if can_use else 'CPUs only'}")]
    if torch.cuda.is_available():
        return lines + [_card(index) for index in range(torch.cuda.device_count())]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not any(Path("/dev", name).exists() for name in ("nvidia0", "kfd", "dxg")):
        return [*lines, Line("GPU", WARNING, "none", SLOW, "./launch_train.sh --demo (takes minutes on a CPU)")]
    if not can_use:
        fix = f"{pip('torch torchvision')} (pytorch.org names the build for each driver)"
        found = "there is one, but this PyTorch is built for CPUs only"
        return [*lines, Line("GPU", RED, found, "any use of a GPU", fix)]
    if hidden is not None:
        found = f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}"
        return [*lines, Line("GPU", WARNING, found, SLOW, "unset CUDA_VISIBLE_DEVICES")]
    torch.cuda.init()  # raises the reason
    raise RuntimeError("PyTorch sees no usable GPU, and gives no reason")


def _card(index: int) -> Line:
    """One card, after it has computed a sum."""
    import torch

    torch.ones(8, device=f"cuda:{index}").sum().item()  # raises if this PyTorch has no code for the card
    about, (free, total) = torch.cuda.get_device_properties(index), torch.cuda.mem_get_info(index)
    found = f"{about.name}, {free / GIB:.1f} GiB free of {total / GIB:.1f} GiB, capability {about.major}.{about.minor}"
    if free < total / 2:
        return Line(f"GPU {index}", WARNING, found, "large crops and tiles; other programs use the card", "nvidia-smi")
    return Line(f"GPU {index}", OK, found)


def triton() -> list[Line]:
    """Which operator VRT's alignment takes; on a GPU, after it has run forward and backward."""
    import torch

    from models.op import deform_conv

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = os.environ.get(deform_conv.OVERRIDE) or deform_conv.own_backend(device)
    shapes = ((1, 16, 8, 8), (1, 18, 8, 8), (1, 9, 8, 8), (16, 16, 3, 3), (16,))
    arguments = [torch.rand(*shape, device=device, requires_grad=True) for shape in shapes]
    deform_conv.deform_conv2d(*arguments).sum().backward()
    if device.type == "cpu":
        return [Line("Triton", OK, f"not needed: VRT's alignment has run on the CPU as {name!r}")]
    torch.cuda.synchronize()
    if name == "triton":
        version = importlib.import_module("triton").__version__
        return [Line("Triton", OK, f"{version}: VRT's alignment has run on the GPU")]
    reason = deform_conv.why_no_triton(device)
    found = f"not used, VRT's alignment runs as {name!r}: {reason or 'set by ' + deform_conv.OVERRIDE}"
    return [Line("Triton", WARNING, found, "fast training of VRT", f"unset {deform_conv.OVERRIDE}; {pip('triton')}")]


def video() -> list[Line]:
    """Write a short video with each codec and read it back; look for the decoders of cameras' files."""
    import av
    import numpy as np

    from utils.utils_run_folder import VIDEO_SUFFIXES
    from utils.utils_video import write_video

    lines: list[Line] = []
    written: list[str] = []
    pictures = [np.full((32, 32, 3), level, np.uint8) for level in (0, 99, 200)]
    for codec, suffix in VIDEO_SUFFIXES.items():
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"video{suffix}"
                write_video(path, pictures, codec=codec)
                with av.open(str(path)) as container:
                    frames = sum(1 for _ in container.decode(video=0))
        except UserError as error:
            lines.append(Line("video writing", RED, str(error), f"val.output {codec!r}", pip('"av>=12"')))
            continue
        except OSError as error:
            found = f"not tried: temporary files cannot be written ({error.strerror})"
            lines.append(Line("video writing", RED, found, TEMPORARY, "export TMPDIR=FOLDER (one with free space)"))
            break
        assert frames == 3, f"{frames} of 3 frames read back from {suffix}"
        written.append(f"{suffix} ({codec})")
    if written:
        lines.append(Line("video writing", OK, f"{', '.join(written)}, read back"))
    missing = [name for name in ("h264", "hevc") if name not in av.codecs_available]
    version = "FFmpeg's libavcodec " + ".".join(map(str, av.library_versions["libavcodec"]))
    if missing:
        found = f"{version} lacks {', '.join(missing)}"
        return [*lines, Line("video reading", RED, found, "reading videos of cameras", pip('"av>=12"'))]
    return [*lines, Line("video reading", OK, f"h264, hevc ({version}, PyAV {av.__version__})")]


def sets() -> list[Line]:
    """The data sets in datasets/ and the folders in it, in the project's layout."""
    from data.layout import SPLITS, TOP_LEVEL

    lines = []
    for root in (DATASETS, *sorted(path for path in DATASETS.glob("[!.]*") if path.is_dir())):
        try:
            blocks = {split: opt for split in SPLITS if (opt := _block(root, split))}
            checked = _checked(root, blocks) if blocks else None
        except (UserError, OSError) as error:
            lines.append(Line(str(root), RED, str(error), USE, CHECK))
            continue
        if checked:
            lines.append(checked)
        elif root != DATASETS and root.name not in TOP_LEVEL:
            found = "no data set: has neither train_GT_blurred nor test_GT_blurred"
            lines.append(Line(str(root), WARNING, found, "training and testing with it, until it is prepared", PREPARE))
    effect = "training and testing, until there is one"
    return lines or [Line("data sets", WARNING, "none in datasets/", effect, f"./launch_train.sh --demo, or {PREPARE}")]


def _block(root: Path, split: "Split") -> "DatasetOpt | None":
    """The options that read one split of a data set; None if it has no blurred frames."""
    from data.layout import gt_dir, lq_dir, spike_dir
    from data.lmdb_store import lmdb_path
    from data.official_tasks import GOPRO_SPIKE_SIZE
    from data.spike.manifest import Manifest
    from options.schema import DatasetOpt

    folders = {"lq": lq_dir(root, split), "gt": gt_dir(root, split), "spike": spike_dir(root, split)}
    found = {key: next(filter(Path.is_dir, (path, lmdb_path(path))), None) for key, path in folders.items()}
    if found["lq"] is None:
        return None
    given: dict[str, Any] = {f"dataroot_{key}": str(path) for key, path in found.items() if path}
    spikes = found["spike"]
    if spikes is not None and not Manifest.load(spikes):
        given |= dict(zip(("spike_h", "spike_w"), GOPRO_SPIKE_SIZE, strict=True))
    given |= {"name": str(root), "dataset_type": "VideoRecurrentTestDataset" + "RGBSpike" * (spikes is not None)}
    given |= {"spike": {"window": 1, "edge": "mirror"}}
    given |= {"io_backend": {"type": "lmdb" if found["lq"].suffix == ".lmdb" else "disk"}}
    return DatasetOpt.model_validate(given)


def _checked(root: Path, blocks: "dict[Split, DatasetOpt]") -> Line:
    """Compare the names, counts and sizes of a data set's files."""
    from data.check import check_dataset
    from data.clip_index import scan_clips

    defects = [defect for opt in blocks.values() for defect in check_dataset(opt, full=False)]
    if defects:
        more = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
        return Line(str(root), RED, f"{defects[0]}{more}", USE, CHECK)
    counts = []
    for split, opt in blocks.items():
        clips = scan_clips(Path(str(opt.dataroot_lq)))
        frames = sum(map(len, clips.values()))
        spikes = "with" if opt.uses_spikes else "without"
        counts.append(f"{split}: {counted(len(clips), 'clip')}, {counted(frames, 'frame')}, {spikes} spikes")
    return Line(str(root), OK, "; ".join(counts))


def weights() -> list[Line]:
    """The weights that ship, and those of the official release that the user has put into model_zoo."""
    from options.schema import Opt
    from utils import utils_option
    from utils.utils_checkpoint import read_state_dict
    from utils.utils_run_folder import RELEASE
    from utils.utils_zoo import SHIPPED, TASKS, located

    lines = []
    flow = utils_option.load(RECIPE, Opt).netG.spynet_path
    official = sorted(OFFICIAL.glob("*.pth"))
    for path in (*SHIPPED, *official):
        task = TASKS.get(path.stem, path.stem)
        fix = f"git checkout {path}" if path in SHIPPED else f"rm {path}, then get it again from {RELEASE}"
        try:
            count = sum(tensor.numel() for tensor in read_state_dict(located(path)).values())
        except UserError as error:
            lines.append(Line(path.stem, RED, str(error), f"main_test_vrt.py --task {task}", fix))
            continue
        origin = "ships with the project" if path in SHIPPED else "official release"
        lines.append(Line(path.stem, OK, f"{count / 1e6:.2f} M values, {origin}"))
    if flow is not None and not Path(flow).is_file():
        fix = f"get {Path(flow).name} from {RELEASE} into {OFFICIAL}, or add --set netG.spynet_path=null"
        lines.append(Line("optical flow", WARNING, f"{flow} not found", f"./launch_train.sh with {RECIPE}", fix))
    return lines


PARTS = {look.__name__: look for look in (gpu, triton, video, sets, weights)}


def main() -> None:
    """Look at the parts of the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("parts", nargs="+", metavar="PART", help=f"import:MODULE, {', '.join(PARTS)}")
    for part in parser.parse_args().parts:
        kind, _, module = part.partition(":")
        if kind == "import":
            importlib.import_module(module)
        elif kind not in PARTS:
            parser.error(f"no part {part}")
        lines = [found._asdict() for found in PARTS[kind]()] if kind in PARTS else []
        print(f"\n{MARK}{json.dumps(lines)}", flush=True)


if __name__ == "__main__":
    main()
