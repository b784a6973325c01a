"""Image files as they come: any suffix, turned by EXIF, with something behind their end, deep, or no images at all."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_set import make_set, options, rng

from data.check import check_dataset
from data.clip_index import scan_clips
from data.dataset_video_test import VideoTestDataset
from data.frame_store import FrameStore
from data.prepare.gopro_scan import image_fact
from data.prepare.lmdb_sources import PngFiles
from data.prepare.lmdb_writer import write_lmdbs
from data.prepare.recordings import folder_source
from data.select_dataset import define_Dataset
from scripts import evaluate
from utils.utils_error import UserError
from utils.utils_image import decode_rgb, image_size, read_rgb, remark, write_rgb
from utils.utils_image_header import header_of

PICTURE = cv2.GaussianBlur(rng().integers(256, size=(24, 40, 3)).astype(np.uint8), (0, 0), 2)


def encoded(kind, **how):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **how)
    return file.getvalue()


def array(data):
    return np.frombuffer(data, np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def turned_file(kind, orientation):
    """A file with an orientation tag; "late": in a PNG, behind the pixels."""
    if kind == "late":
        data = encoded("PNG")
        return data[:-12] + chunk(b"eXIf", exif(orientation).tobytes()[6:]) + data[-12:]
    return encoded(kind, exif=exif(orientation) if kind == "TIFF" else exif(orientation).tobytes())


# Orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "late", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_tag_turns_size_and_pixels(tmp_path, kind, orientation):
    data = turned_file(kind, orientation)
    path = tmp_path / "frame"
    path.write_bytes(data)
    plain = Image.open(io.BytesIO(encoded({"late": "PNG"}.get(kind, kind)))).convert("RGB")
    plain.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(plain))
    found = read_rgb(path)
    assert image_size(path) == found.shape[:2] == wanted.shape[:2]
    assert np.abs(found.astype(int) - wanted).max() <= (3 if kind in ("JPEG", "WEBP") else 0)


def turn_all(root, kind, suffix):
    for path in list(root.rglob("*.png")):
        path.unlink()
        path.with_suffix(suffix).write_bytes(turned_file(kind, 6))


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png")])
def test_turned_frames_are_one_data_set_everywhere(own_set, tmp_path, kind, suffix):
    turn_all(own_set, kind, suffix)
    opt = options(own_set, "Test", spikes=False)
    clip = VideoTestDataset(opt)[0]
    assert clip.size == (40, 24) == tuple(clip.lq(0, 5).shape[2:])
    assert check_dataset(opt) == []
    sample = define_Dataset(options(own_set, spikes=False)).sample(0, rng())
    assert sample["lq"].shape == (3, 3, 16, 16)
    assert next(folder_source(own_set / "lq/clip_a").frames()).shape == (40, 24, 3)
    write_lmdbs([(PngFiles(own_set / "lq", 0), tmp_path / "lq.lmdb")])
    stored = FrameStore(tmp_path / "lq.lmdb", backend="lmdb")
    assert stored.size("clip_a", "000047") == (40, 24)
    assert np.array_equal(stored.read("clip_a", "000047"), clip.gt(0, 1)[0])


# Something behind the end, and cut-off files


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "progressive", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("behind", [b"abc", bytes(512), b"x" * 100_000, b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 90])
def test_a_whole_file_with_something_behind_its_end_is_read(tmp_path, kind, behind):
    data = encoded("JPEG", progressive=True) if kind == "progressive" else encoded(kind)
    (tmp_path / "frame").write_bytes(data + behind)
    assert np.array_equal(read_rgb(tmp_path / "frame"), decode_rgb(array(data)))
    if kind == "PNG":
        assert image_fact(tmp_path / "frame") == PICTURE.shape[:2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "progressive", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("behind", [b"", bytes(512)])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kind, behind, capfd):
    data = encoded("JPEG", progressive=True) if kind == "progressive" else encoded(kind)
    for share in (0.05, 0.3, 0.6, 0.95):
        if behind and kind in ("BMP", "PPM", "TIFF", "WEBP"):
            continue  # bare pixels: nothing tells them from zeros
        (tmp_path / "frame").write_bytes(data[: int(len(data) * share)] + behind)
        with pytest.raises(UserError, match="frame: (its .* are not a complete image|not a readable image)") as caught:
            read_rgb(tmp_path / "frame")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "libraries keep quiet"


def test_a_thumbnail_is_no_end(tmp_path):
    """A JPEG inside the EXIF block has an end mark, too."""
    tags = b"Exif\0\0" + exif(1).tobytes()[6:] + encoded("JPEG")
    data = encoded("JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + data[2:]
    assert np.array_equal(decode_rgb(array(data)), decode_rgb(array(encoded("JPEG"))))
    assert decode_rgb(array(data[:-300])) is None


# Bits


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_true_16_bits_are_exact_and_fewer_are_said(tmp_path, suffix):
    path = tmp_path / f"frame{suffix}"
    cv2.imwrite(str(path), PICTURE[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_rgb(path), PICTURE)
    assert remark({"a": array(path.read_bytes())}) == ""
    for bits in (8, 10, 12, 14):
        values = (PICTURE[..., ::-1] / 255 * (2**bits - 1)).astype(np.uint16)
        cv2.imwrite(str(path), values)
        assert f"seems to use only {bits} " in remark({"a": array(path.read_bytes())})
        mixed = {"a": array(encoded("PNG")), "b": array(path.read_bytes())}
        assert remark(mixed).startswith(f"b has 16 bits but seems to use only {bits} ")
    cv2.imwrite(str(path), np.zeros((4, 4), np.uint16))
    assert remark({"a": array(path.read_bytes())}) == ""


def test_unused_bits_are_said_once_a_clip(own_set, heard):
    for path in (own_set / "lq/clip_b").iterdir():
        cv2.imwrite(str(path), (read_rgb(path) / 255 * 1023).astype(np.uint16))
    define_Dataset(options(own_set, "Test"))
    said = [record.message for record in heard.records if "bits" in record.message]
    assert len(said) == 1
    assert "clip clip_b: frame 000047 in" in said[0]
    assert "multiply its values by 64" in said[0]
    assert str(own_set / "lq/clip_b") in said[0]


def test_images_that_are_none_of_ours_are_named(tmp_path):
    values = PICTURE.astype(np.float32) / 255
    cv2.imwrite(str(tmp_path / "rgb.tif"), values, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    cv2.imwrite(str(tmp_path / "log.tif"), values, [cv2.IMWRITE_TIFF_COMPRESSION, 34676])  # OpenCV's default up to 4.9
    cv2.imwrite(str(tmp_path / "gray.tif"), values[..., 0])
    cv2.imwrite(str(tmp_path / "light.hdr"), values)
    (tmp_path / "light.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(99))
    kinds = {
        "rgb.tif": "32-bit float TIFF",
        "log.tif": "LogLuv TIFF",
        "gray.tif": "32-bit float TIFF",
        "light.hdr": "Radiance",
        "light.exr": "OpenEXR",
    }
    for name, kind in kinds.items():
        for read in (read_rgb, image_size):
            with pytest.raises(UserError, match=f"{name}: is an? {kind}.*expected 8 or 16 bits.*convert it to png"):
                read(tmp_path / name)
        assert decode_rgb(array((tmp_path / name).read_bytes())) is None


def test_several_pictures_in_a_file_are_said():
    pages = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1])]
    for kind in ("TIFF", "PNG", "WEBP"):
        file = io.BytesIO()
        pages[0].save(file, kind, save_all=True, append_images=pages[1:])
        assert header_of(array(file.getvalue())).pictures == 2
        assert "contains 2 pictures, but only the first is read" in remark({"a": array(file.getvalue())})
    assert remark({"a": array(encoded("TIFF"))}) == ""


# Any suffix


def with_suffixes(root, suffixes):
    """Write the frames of a set anew, with suffixes that take turns."""
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        image = read_rgb(path)
        path.unlink()
        write_rgb(path.with_suffix(suffixes[number % len(suffixes)]), image)
    return root


@pytest.mark.parametrize("suffixes", [(".png", ".bmp"), (".PNG", ".png"), (".tiff", ".TIF", ".ppm")])
@pytest.mark.parametrize("kind", ["Train", "Test"])
def test_all_kinds_of_images_are_frames(shared_set, own_set, suffixes, kind):
    with_suffixes(own_set / "lq/clip_b", suffixes)
    with_suffixes(own_set / "gt", suffixes[::-1])
    opt = options(own_set, kind)
    assert check_dataset(opt) == []
    dataset, wanted = define_Dataset(opt), define_Dataset(options(shared_set, kind))
    if kind == "Test":
        assert np.array_equal(dataset[1].gt(0, 5), wanted[1].gt(0, 5))
        assert dataset[1].network_input(0, 5).rgb.equal(wanted[1].network_input(0, 5).rgb)
        assert dataset[1].spike(0, 5).equal(wanted[1].spike(0, 5))
    else:
        assert all(dataset.sample(4, rng())[part].equal(wanted.sample(4, rng())[part]) for part in ("lq", "gt"))


def test_two_files_of_one_frame_are_refused(own_set):
    write_rgb(own_set / "gt/clip_b/000049.bmp", PICTURE)
    with pytest.raises(UserError, match="gt/clip_b: 000049.bmp and 000049.png would both be frame 000049"):
        define_Dataset(options(own_set, "Test"))


def test_a_chosen_extension_is_taken_in_any_case_and_the_rest_is_named(own_set, heard):
    with_suffixes(own_set / "lq/clip_a", [".PNG"])
    for clip in ("clip_a", "clip_b"):
        write_rgb(own_set / f"lq/{clip}/000099.jpg", PICTURE)
    test_set = define_Dataset(options(own_set, "Test", filename_ext="png"))
    assert [len(clip.frames) for clip in test_set] == [5, 5]
    said = [record.message for record in heard.records if "left out" in record.message]
    assert len(said) == 1
    assert "clip_a/000099.jpg (not *.png), clip_b/000099.jpg (not *.png)" in said[0]
    with pytest.raises(UserError, match="gt/clip_a has none of the 1 .* 0 frames, and 5 png"):
        define_Dataset(options(own_set, "Test", filename_ext="jpg"))


def test_what_is_left_out_beside_whole_clips_is_named(own_set, heard):
    lq = own_set / "lq"
    (lq / "clip_c").symlink_to(lq / "nowhere")
    (lq / "clip_d").mkdir()
    (lq / "clip_e/deep").mkdir(parents=True)
    write_rgb(lq / "clip_e/deep/000000.png", PICTURE)
    (lq / "clip_f").mkdir()
    (lq / "clip_f/000000.heic").write_bytes(b"phone")
    (lq / "clip_a/000050.exr").write_bytes(b"light")
    (lq / "clip_a/.hidden.png").write_bytes(b"")
    define_Dataset(options(own_set, "Test"))
    said = next(record.message for record in heard.records if "left out" in record.message)
    for words in (
        "clip_c (a broken link)",
        "clip_d (holds no images)",
        "clip_e (frames are in clip_e/deep)",
        "clip_f (holds heic)",
        "clip_a/000050.exr (not read)",
    ):
        assert words in said
    assert "hidden" not in said


def test_broken_links_are_named(own_set, heard):
    (own_set / "lq/loop").symlink_to("loop")
    define_Dataset(options(own_set, "Test"))
    assert "left out: loop (a broken link)" in heard.text
    frame, dat = own_set / "gt/clip_a/000047.png", own_set / "spikes/train/clip_a/spike/000048.dat"
    for path in (frame, dat):
        path.rename(path.with_suffix(".elsewhere"))
        path.symlink_to("gone")
    with pytest.raises(UserError, match="spike/000048.dat: cannot be read .No such file.*; restore or remove it"):
        define_Dataset(options(own_set, "Test"))
    with pytest.raises(UserError, match="frame 000047: .*000047.png: is a link to a missing file"):
        define_Dataset(options(own_set, "Test", spikes=False))


# What is there instead


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["a/b/c/000000.png"],
            "frames are deeper, in a/b/c: give a folder one or two levels above them, such as .*/a/b",
        ),
        (["clip/000000.exr"], "there are exr files, which are not read; convert them"),
        (["000000.HEIC"], "there are HEIC files, which are not read"),
        (["notes.txt", "clip/readme.md"], "it holds clip, notes.txt; correct the path"),
        ([], "it holds nothing; correct the path"),
    ],
)
def test_a_root_without_frames_says_what_it_holds(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message) as caught:
        scan_clips(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_beside_the_frames_of_a_clip_do_not_matter(own_set, heard):
    for kind in ("lq", "gt"):
        write_rgb(own_set / kind / "clip_a/masks/000047.png", PICTURE)
    assert [len(clip.frames) for clip in define_Dataset(options(own_set, "Test"))] == [5, 5]
    folders = [str(own_set / kind) for kind in ("gt", "lq")]
    evaluate.main(["--restored", folders[0], "--gt", folders[1], "--metrics", "psnr"])
    assert len(list(folder_source(own_set / "lq/clip_a").frames())) == 5
    for path in (own_set / "lq/clip_b").iterdir():
        cv2.imwrite(str(path), np.full((8, 8), 1023, np.uint16))
    next(folder_source(own_set / "lq/clip_b").frames())
    assert "lq/clip_b: 000047.png has 16 bits but seems to use only 10" in heard.text


# Layouts


def vimeo(root):
    for clip in ("00001/0001", "00001/0002", "00002/0266"):
        for number in range(1, 8):
            for kind, scale in (("lq", 1), ("gt", 4)):
                write_rgb(root / kind / clip / f"im{number}.png", np.full((8 * scale, 8 * scale, 3), number, np.uint8))
    return root


@pytest.mark.parametrize(
    "meta", [None, "00001/0001 7 (32,32,3)\n00002/0266 7 (32,32,3)\n", "00001/0001 7 (32,32,3) 1\n"]
)
def test_vimeos_two_levels_are_clips(tmp_path, meta):
    changes = {}
    if meta:
        (tmp_path / "meta.txt").write_text(meta)
        changes = {"meta_info_file": str(tmp_path / "meta.txt"), "filename_tmpl": "im{}"}
    test_set = define_Dataset(options(vimeo(tmp_path), "Test", spikes=False, **changes), 4)
    clips = (
        ["00001/0001", "00001/0002", "00002/0266"] if meta is None else [line.split()[0] for line in meta.splitlines()]
    )
    assert [clip.name for clip in test_set] == clips
    assert test_set[0].frames == [f"im{number}" for number in range(1, 8)]
    assert test_set[0].gt(0, 7)[:, 0, 0, 0].tolist() == list(range(1, 8))
    assert test_set.scale == 4


def test_clips_of_two_levels_go_into_an_lmdb(tmp_path):
    write_lmdbs([(PngFiles(vimeo(tmp_path) / "gt", 0), tmp_path / "gt.lmdb")])
    assert scan_clips(tmp_path / "gt.lmdb") == scan_clips(tmp_path / "gt")


@pytest.mark.parametrize("parts", [("blur", "sharp"), ("blur", "blur_gamma", "sharp"), ("input", "GT")])
@pytest.mark.parametrize("clips", [("GOPR0384_11_00", "GOPR0385_11_01"), ("GOPR0384_11_00",), ()])
def test_clips_with_a_folder_for_each_part(tmp_path, parts, clips):
    for clip in clips or ("",):
        for value, part in enumerate(parts):
            for number in range(3):
                write_rgb(tmp_path / clip / part / f"{number:06d}.png", np.full((8, 8, 3), value, np.uint8))
    opt = options(tmp_path, "Test", spikes=False, dataroot_lq=str(tmp_path), dataroot_gt=str(tmp_path))
    test_set = define_Dataset(opt)
    assert [clip.name for clip in test_set] == list(clips or (tmp_path.name,))
    for clip in test_set:
        assert not clip.lq(0, 3).any()
        assert (clip.gt(0, 3) == len(parts) - 1).all()


def test_parts_that_are_neither_blurred_nor_sharp_are_named(tmp_path):
    for part in ("left", "right"):
        write_rgb(tmp_path / "clip" / part / "000000.png", PICTURE)
    with pytest.raises(UserError, match="each clip has the folders left, right, so the wanted one is ambiguous"):
        scan_clips(tmp_path)


def test_further_folders_beside_blurred_and_sharp_ones_are_no_clips(tmp_path):
    for value, part in enumerate(("blur", "blur2", "sharp")):
        write_rgb(tmp_path / "GOPR0384_11_00" / part / "000000.png", np.full((8, 8, 3), value, np.uint8))
    opt = options(tmp_path, "Test", spikes=False, dataroot_lq=str(tmp_path), dataroot_gt=str(tmp_path))
    (clip,) = define_Dataset(opt)
    assert (clip.name, clip.gt(0, 1).max()) == ("GOPR0384_11_00", 2)


def test_a_clip_beside_the_folders_of_one_clip_is_left_out_with_a_line(tmp_path, heard):
    for part in ("input", "gt", "c3"):
        write_rgb(tmp_path / part / "000000.png", PICTURE)
    opt = options(tmp_path, "Test", spikes=False, dataroot_lq=str(tmp_path), dataroot_gt=str(tmp_path))
    assert len(define_Dataset(opt)) == 1
    assert "left out: c3 (beside the folders of one clip)" in heard.text


@pytest.mark.parametrize("sets", [("blur", "sharp"), ("train", "test"), ("val_sharp", "val_blur"), ("lq", "GT")])
def test_several_data_sets_are_no_clips_of_one(tmp_path, sets):
    for name in sets:
        write_rgb(tmp_path / name / "000" / "000000.png", PICTURE)
    words = f"holds several data sets, in {', '.join(sorted(sets))}; give one of these folders"
    with pytest.raises(UserError, match=words):
        scan_clips(tmp_path)


@pytest.mark.parametrize("outer", [("00001", "00002"), ("test_01", "test_02"), ("street", "test_drive")])
def test_folders_of_clips_may_have_many_names(tmp_path, outer):
    for name in outer:
        write_rgb(tmp_path / name / "0001" / "im1.png", PICTURE)
    assert list(scan_clips(tmp_path)) == [f"{name}/0001" for name in outer]


# Names that a meta file gives


def test_a_meta_line_without_a_start_is_said_or_answered_with_the_line_to_write(tmp_path, heard):
    root = make_set(tmp_path, clips=("GOPR0386_11_00",), frames=5)
    meta = root / "meta.txt"
    opt = options(root, "Test", spikes=False, meta_info_file=str(meta))
    meta.write_text("GOPR0386_11_00 100 (32,48,3)\n")
    found = "frame 000000: missing in .* .found 5 frames, 000047 to 000051, expected 100."
    words = f"{found}; write `GOPR0386_11_00 5 .32,48,3. 47`"
    with pytest.raises(UserError, match=words):
        define_Dataset(opt)
    meta.write_text("GOPR0386_11_00 20 (32,48,3)\n")
    words = "has none of the 20 frames 000000 to 000019; it has 5 frames, 000047 to 000051; write `GOPR0386_11_00 5 "
    with pytest.raises(UserError, match=words):
        define_Dataset(opt)
    meta.write_text("GOPR0386_11_00 5 (32,48,3) 47\n")
    with pytest.raises(UserError, match='write `GOPR0386_11_00 5 .32,48,3. 47` and set filename_tmpl to "06d"'):
        define_Dataset(opt.model_copy(update={"filename_tmpl": "03d"}))
    assert define_Dataset(opt)[0].frames[0] == "000047"
    meta.write_text("GOPR0386_11_00 5 (32,48,3)\n")
    assert define_Dataset(opt)[0].frames[0] == "000047"
    assert "has no start frame for GOPR0386_11_00; using the existing frames, 000047 to 000051" in heard.text


@pytest.mark.parametrize("template", ["im{", "{}{}", "im", "{:5f}", "7"])
def test_other_templates_are_refused(shared_set, template):
    with pytest.raises(ValueError, match="filename_tmpl"):
        options(shared_set, filename_tmpl=template)


@pytest.mark.parametrize("ask", ["size", "read"])
def test_a_missing_frame_is_named_once(tmp_path, ask):
    write_rgb(tmp_path / "a" / "000000.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="^clip a frame 000001: [^:]* has no image of that name; restore it$"):
        getattr(FrameStore(tmp_path), ask)("a", "000001")
