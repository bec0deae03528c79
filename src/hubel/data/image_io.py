"""From an image file, or an image in memory, to an upright 8-bit RGB image.

Handles all common kinds of images: grey, palette, CMYK, 16-bit, with alpha, rotated by a camera's
EXIF tag, animated. An error names the file and the reason in one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import io
import stat
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from hubel import masks
from hubel.data import file_kinds, image_repairs, tiff_pixels
from hubel.errors import ImageError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = masks.MAX_PIXELS
"""The largest image that is decoded, in pixels: 512 MiB of RGB, and what Pillow itself allows.

Larger ones are refused by their header, before memory is allocated.
"""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
"""Supported formats, by Pillow's names. Others are excluded, as some of Pillow's readers start programs.

HEIC is read by the package of the extra ``heif``.
"""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
# Formats of which Pillow applies the orientation itself.
_TURNED = ("TIFF", "HEIF")
_JPEG = ("JPEG", "MPO")
_MAX_EXIF = 2**20
_EXIF_KEYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_CONVERT = "open it in an image program and save it as JPEG or PNG, or leave it out"
_COPY_AGAIN = "copy or download it again, or leave it out"
_NAME_A_FILE = "pass an image or video file"
_LINK_AGAIN = "recreate the link, or remove it"
_SMALLER = "scale it down or cut it into tiles"

# Pillow warns of odd metadata (a broken EXIF block, surplus TIFF tags) that changes nothing in the pixels.
# A filter made once is safe with threads; ``warnings.catch_warnings`` around each image is not.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(source: str | Path | bytes | Image.Image | np.ndarray, keep_alpha: bool = False) -> Image.Image:
    """Read one image as a loaded ``PIL`` image of mode RGB, which may be ``source`` itself.

    With ``keep_alpha``, one with transparent parts as RGBA.

    - The rotation in the EXIF data is applied, also for a ``PIL`` image that still carries it.
    - Of animations the first frame is taken.
    - Transparent parts are laid on white: images with alpha are mostly cut-outs and drawings made for white
      pages, and what lies under their transparent pixels (often black) was never meant to be seen.
    - 16-bit grey is scaled from 0..65535 to 0..255, whatever part of that range the image uses. 32-bit
      integers are taken for 16-bit values if they fit, floats for 0..1 or 0..255 if they fit; otherwise the
      range from their least to their greatest value is stretched to 0..255.
    - Colour profiles are not applied, as everywhere in the field; CMYK is converted by its plain formula.

    Args:
        source: a file name; the bytes of a file; a ``PIL`` image of any mode; or an array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) in the order R, G, B, A, of uint8, bool, or floats within 0..1.

    Raises:
        ImageError: the file does not exist, is not an image or damaged, or has more than :data:`MAX_PIXELS` pixels.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "the array", keep_alpha)
    if isinstance(source, Image.Image):
        return _load_upright(source, "the image", keep_alpha=keep_alpha)
    with _opened(source) as (image, name, file):
        return _load_upright(image, name, file, keep_alpha=keep_alpha)


@dataclass(frozen=True)
class DownscaledImage:
    """An upright RGB image that was decoded at a part of its size.

    ``width`` and ``height`` are those of the upright original; ``scale`` of its pixels (1, 2, 4 or 8) are one of the
    image in each direction.
    """

    image: Image.Image
    width: int
    height: int
    scale: int


def read_reduced(source: str | Path | bytes, most: Callable[[int, int], float]) -> DownscaledImage:
    """Read one image at reduced resolution, for purposes that do not need all of its pixels.

    JPEG's blocks of 8 × 8 pixels can be decoded to 4 × 4, 2 × 2 or 1 × 1, which are their means but for rounding and
    what the higher frequencies add: for photographs of a camera's size several times as fast. Other formats come
    whole. ``most`` gives for an upright image's width and height how many times it may be reduced. Errors are those of
    :func:`read_image`.
    """
    with _opened(source) as (image, name, file):
        scale = _scale(image, most)
        size = image.size
        upright = _load_upright(image, name, file, scale)
    if scale == 1:
        return DownscaledImage(upright, upright.width, upright.height, 1)
    width, height = reversed(size) if _orientation(image) >= 5 else size
    return DownscaledImage(upright, width, height, scale)


def _scale(image: Image.Image, most: Callable[[int, int], float]) -> int:
    """How many times an opened image is reduced: 1, 2, 4 or 8."""
    width, height = image.size
    # Rarely is there anything to reduce: only then is the EXIF data worth parsing.
    if image.format not in _JPEG or max(most(width, height), most(height, width)) < 2:
        return 1
    orientation = _orientation(image)
    times = most(height, width) if orientation >= 5 else most(width, height)
    times = min(times, width, height)  # a thin image keeps a pixel
    # The blocks begin in the stored image's corner: rotated, they fit the upright one only if they are all whole.
    return next((k for k in (8, 4, 2) if k <= times and (orientation == 1 or width % k == height % k == 0)), 1)


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from its header alone.

    Raises :class:`ImageError` as :func:`read_image`, except for damage that shows only when the pixels are decoded.
    """
    width, height, orientation = read_stored_size(source)
    return (height, width) if orientation >= 5 else (width, height)


def read_stored_size(source: str | Path | bytes) -> tuple[int, int, int]:
    """As :func:`read_size`, but as the file stores the image, and the EXIF orientation to be applied, 1..8."""
    with _opened(source) as (image, _, file):
        if image.format == "PNG" and not any(key in image.info for key in _EXIF_KEYS):
            return *image.size, _late_orientation(file)
        return *image.size, _orientation(image)


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[tuple[Image.Image, str, BinaryIO]]:
    """The image with its header read, the name that errors call it by, and its file."""
    if source == b"":
        raise ImageError("the image is empty (0 bytes)", "pass the bytes of an image file")
    name = "the image" if isinstance(source, bytes) else str(source)
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else open_file(Path(source), name)
    with file:
        yield _read_header(file, name), name, file


def open_file(path: Path, name: str) -> BinaryIO:
    """Open an image or video, which errors call ``name``, for reading.

    Raises :class:`ImageError` if it does not exist, is a folder or a device, is empty, or cannot be opened.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name} is a folder", _NAME_A_FILE)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            raise ImageError(f"{name} is not a regular file", _NAME_A_FILE)
        if status.st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes)", _COPY_AGAIN)
        return path.open("rb")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageError(f"{name} is a broken link (to {path.readlink()})", _LINK_AGAIN) from error
        raise ImageError(f"{name} does not exist", "check the spelling and the folder") from error
    except PermissionError as error:
        hint = "make it readable (chmod +r)"
        raise ImageError(f"{name}: permission denied", hint) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ImageError(f"{name} is a broken link (it points to itself)", _LINK_AGAIN) from error
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be opened: {reason}", "check the name and the disk") from error


def _read_header(file: BinaryIO, name: str) -> Image.Image:
    prefix = file.read(file_kinds.PREFIX_BYTES)
    file.seek(0)
    kind = file_kinds.image_kind(prefix)
    if kind == "TIFF":
        tiff_pixels.silence_libtiff()
    try:
        image = _heif(file) if kind == "HEIC" else Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(_declared_size(file), name) from error
    except MissingExtraError as error:
        message = f"{name} is a HEIC image, and the package that reads these is not installed"
        raise ImageError(message, error.hint) from error
    except Exception as error:  # the readers meet hostile bytes: they may raise anything
        if (repaired := _repaired(file)) is not None:
            return _read_header(repaired, name)
        if kind == "WebP" and (size := int.from_bytes(prefix[4:8], "little") + 8) > file.seek(0, io.SEEK_END):
            raise ImageError(f"{name} is truncated: it should have {size} bytes", _COPY_AGAIN) from error
        if isinstance(error, UnidentifiedImageError):
            raise _unidentified(file, prefix, name) from error
        raise _damaged(error, name) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(image.size, name)
    if image.format == "TIFF":
        if tiff_pixels.is_camera_raw(image, prefix):
            raise ImageError(f"{name} is a camera's raw file, of which only a preview could be read", _CONVERT)
        if layout := tiff_pixels.unread_layout(image):
            raise _unsupported_tiff(name, layout)
        tiff_pixels.use_native_order(image)
    return image


def _heif(file: BinaryIO) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise MissingExtraError("HEIC", "heif") from error
    image: Image.Image = HeifImageFile(file, "")
    return image


def _repaired(file: BinaryIO) -> BinaryIO | None:
    """The file without damage that costs no pixel, if there is such damage."""
    file.seek(0)
    data = file.read(image_repairs.MAX_BYTES + 1)
    repaired = image_repairs.without_damage(data) if len(data) <= image_repairs.MAX_BYTES else None
    return None if repaired is None else io.BytesIO(repaired)


def _unidentified(file: BinaryIO, prefix: bytes, name: str) -> ImageError:
    """The error of a file that Pillow does not open, by how it begins."""
    kind = file_kinds.image_kind(prefix)
    if file_kinds.is_video(prefix):
        return ImageError(f"{name} is a video or sound, not an image", "pass it as a video, or leave it out")
    if file_kinds.is_sound(prefix):
        return ImageError(f"{name} is sound, not an image", "leave it out")
    if kind == "TIFF" and (layout := tiff_pixels.layout(file)):
        return _unsupported_tiff(name, layout)
    if kind is None and (other := file_kinds.other_kind(prefix)) is not None:
        return ImageError(f"{name} is {other[0]}, not an image", other[1])
    if kind is None:
        return ImageError(f"{name} is not an image (or its format is not supported)", _CONVERT)
    if not file_kinds.is_image(prefix):
        return ImageError(f"{name} is a file of the format {kind}, which is not supported", _CONVERT)
    return ImageError(f"{name} is damaged or truncated: it begins like {kind}, but cannot be read", _COPY_AGAIN)


def _unsupported_tiff(name: str, layout: str) -> ImageError:
    return ImageError(f"{name} is a TIFF with {layout}, which is not supported", _CONVERT)


def _declared_size(file: BinaryIO) -> tuple[int, int] | None:
    """The size in the header of an image that ``Image.open`` refuses for its size, if it can be read."""
    file.seek(0)
    prefix = file.read(16)
    for kind in FORMATS:
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is None or (accept is not None and not accept(prefix)):
            continue
        file.seek(0)
        try:
            return factory(file, "").size
        except Exception:  # not this kind, or refused for its size in the reader itself
            continue
    return None


def _too_large(size: tuple[int, int] | None, name: str) -> ImageError:
    limit = f"more than the limit of {MAX_PIXELS / 1e6:.0f} megapixels"
    message = f"{name} has {size[0]}×{size[1]} pixels, {limit}" if size else f"{name} has {limit}"
    return ImageError(message, _SMALLER)


def _damaged(error: Exception, name: str) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError(f"{name} needs more memory than is available", _SMALLER)
    reason = str(error).strip().rstrip(".") or type(error).__name__
    if any(word in reason.lower() for word in ("truncated", "end of file")) or isinstance(error, EOFError):
        return ImageError(f"{name} is truncated: {reason}", _COPY_AGAIN)
    return ImageError(f"{name} is damaged: {reason}", _COPY_AGAIN)


def _load_upright(
    image: Image.Image, name: str, file: BinaryIO | None = None, scale: int = 1, keep_alpha: bool = False
) -> Image.Image:
    """Decode an opened image, a JPEG at a part of its size; ``file`` is where a repair would read it again."""
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))
    try:
        image.load()
    except Exception as error:  # the decoders meet hostile bytes: they may raise anything
        repaired = None if file is None or file.closed else _repaired(file)
        if repaired is None:
            raise _damaged(error, name) from error
        return _load_upright(_read_header(repaired, name), name, None, scale, keep_alpha)
    if file is not None and image.format in _JPEG and image_repairs.is_cut_and_padded(file):
        raise ImageError(f"{name} is truncated: it ends in zeros", _COPY_AGAIN)
    if not image.width or not image.height:
        raise ImageError(f"{name} has no pixels ({image.width}×{image.height})", "leave it out")
    orientation = _orientation(image)
    image = _to_rgb(image, name, keep_alpha)
    return image.transpose(_UPRIGHT[orientation]) if orientation > 1 else image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1..8, with 1 for none, unknown or unreadable."""
    if image.format in _TURNED or not any(key in image.info for key in _EXIF_KEYS):
        return 1
    try:
        # The base class's method: PNG's own decodes the whole image to look for EXIF data after it.
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _late_orientation(file: BinaryIO) -> int:
    """The orientation in an EXIF block that follows the pixels of a PNG, found without decoding these."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf" and length < _MAX_EXIF:
            exif = Image.Exif()
            with contextlib.suppress(Exception):  # a broken EXIF block says nothing about the pixels
                exif.load(file.read(length))
                value = exif.get(_ORIENTATION_TAG, 1)
                return value if value in _UPRIGHT else 1
            return 1
        file.seek(length + 4, io.SEEK_CUR)
    return 1


def _to_rgb(image: Image.Image, name: str, keep_alpha: bool = False) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    try:
        if image.mode == "F" or image.mode.startswith("I"):
            values, is_negative = tiff_pixels.deep_grey(image)
            grey = _eight_bits(values)
            return Image.fromarray(255 - grey if is_negative else grey).convert("RGB")
        if image.format == "TIFF" and image.mode == "P":
            image = tiff_pixels.with_true_palette(image)
        if image.format == "TIFF" and tiff_pixels.has_undeclared_band(image):
            return Image.merge("RGB", image.split()[:3])
        if image.has_transparency_data and keep_alpha:
            return image.convert("RGBA")
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        message = f"{name} has the colour mode {image.mode}, which cannot be converted to RGB"
        raise ImageError(message, _CONVERT) from error


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits, (H, W) integers or floats, as uint8; ranges as in ``read_image``."""
    steps = (1.0, 255.0) if np.issubdtype(values.dtype, np.floating) else (65535.0,)
    scaled = values.astype(np.float32)
    if not (finite := np.isfinite(scaled)).all():  # "no data"; beyond what is there, the nearest
        ends = (float(scaled[finite].min()), float(scaled[finite].max())) if finite.any() else (0.0, 0.0)
        np.nan_to_num(scaled, copy=False, nan=0.0, neginf=ends[0], posinf=ends[1])
    low, high = float(scaled.min()), float(scaled.max())
    if low >= 0 and high <= steps[-1]:
        low, high = 0.0, next(step for step in steps if high <= step)
    scaled -= low
    scaled *= 255.0 / max(high - low, 1e-12)
    scaled += 0.5
    return scaled.clip(0, 255, out=scaled).astype(np.uint8)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0:
        raise ImageError(f"the array has no pixels (shape {array.shape})", "pass an image")
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        hint = "pass (height, width), or (height, width, 3 or 4); one image at a time"
        raise ImageError(f"the array has the shape {array.shape}, which is not an image", hint)
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large((array.shape[1], array.shape[0]), "the array")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN fails this too
            message = f"the array holds floats from {array.min():g} to {array.max():g}"
            raise ImageError(message, "pass floats within 0..1, or uint8 within 0..255")
        array = np.floor(array * 255.0 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"the array has the type {array.dtype}", "pass uint8 within 0..255, or floats within 0..1")
    return Image.fromarray(np.ascontiguousarray(array))
