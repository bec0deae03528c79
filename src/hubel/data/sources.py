"""Images as given on a command line: files, folders, patterns, videos, webcams.

Everything becomes a :class:`ImageSource`. It has a name and can read its pixels, but holds none yet: so the list may be
endless, the consumer decides which thread decodes, and a bad file is bad only when its turn comes. Something that is
not there at all is an image too, one whose ``read`` says so; thus there is one kind of failure, in order with the rest,
and nothing stops the others.
"""

from __future__ import annotations

import glob
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from hubel.data import file_kinds
from hubel.data.addresses import MAX_BYTES, file_of_address, is_address, read_address, redacted
from hubel.data.addresses import is_stream as is_stream_address
from hubel.data.file_listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_below, natural_order, not_listed
from hubel.data.image_io import DownscaledImage, read_image, read_reduced
from hubel.data.live_video import address_frames
from hubel.data.source_lists import list_file, listed_sources, why_unreadable
from hubel.data.video_frames import VideoFrames
from hubel.data.video_reader import VideoFrame, camera_frames, video_frames
from hubel.errors import DataError, ImageError, UsageError

if TYPE_CHECKING:
    import numpy as np

# Suffixes that belong to videos and to other files: to TypeScript, to any data.
_AMBIGUOUS_SUFFIXES = frozenset({".ts", ".tp", ".trp", ".dat", ".bin", ".rec", ".part"})
_MOTION_JPEG_SUFFIXES = frozenset({".mjpeg", ".mjpg"})
_MOST_MISSING = 20  # lines of a list that name nothing, before it is taken for another text
_SHOWN = 200  # characters of such a line
_KNOWN_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class ImageSource:
    """One image that can be read.

    Attributes:
        source: the file as the user named it or would name it, ``"webcam 0"``, or ``None`` for an image in memory.
        read: returns the upright RGB image or raises :class:`ImageError`; may be called again, from any thread.
        frame: number of the video frame, from 1; ``None`` for still images.
        time: seconds since the video's first frame; ``None`` for still images.
        read_reduced: the same for a purpose that does not need all pixels, as
            :func:`hubel.data.image_io.read_reduced`; ``None`` where there is nothing to gain.
        reopen: reads the image again from its file, at any time, and can be pickled; ``None`` where there is no file.
        read_alpha: as ``read``, but gives RGBA where there are transparent parts; ``None`` where there can be none.
    """

    source: str | None
    read: Callable[[], Image.Image]
    frame: int | None = None
    time: float | None = None
    read_reduced: Callable[[Callable[[int, int], float]], DownscaledImage] | None = None
    reopen: Callable[[], Image.Image] | None = None
    read_alpha: Callable[[], Image.Image] | None = None


def expand(sources: Iterable[str | Path | int | bytes | Image.Image | np.ndarray]) -> Iterator[ImageSource]:
    """All images that the sources name, in their order, found while iterating.

    A source is, by the first of these that fits:

    - an image or array in memory, or the bytes of an image file;
    - the name of something that exists, whatever characters it is made of: a folder (all images and videos
      below it, by their suffixes, or by their content where these say nothing, in natural order, hidden ones left
      out), a video, or else an image, which the content tells apart;
    - ``list.txt``, or ``@`` and any text file: the sources that it names, one per line, beside it or here;
    - ``~/…``, and ``file://…``: a file;
    - an address: an image by ``https://…``, a video or a camera by ``rtsp://…``, ``rtmp://…`` or ``https://….m3u8``;
    - ``-``, an image on standard input;
    - the number of a webcam;
    - a pattern with ``*``, ``?``, ``[…]`` or ``**``: as a shell would expand it, in natural order; where the
      pattern does not end in a suffix, only images, videos and (without ``**``) folders count.

    Videos give one image per frame. Memory is bounded: by the names in one folder (or of one pattern), and by
    the images that the consumer keeps. Nothing is raised for a bad source: reading its image raises.
    """
    for source in sources:
        if isinstance(source, (str, Path)):
            for found in _found(str(source)):
                if isinstance(found, ImageSource):
                    yield found
                elif _is_video(found):
                    yield from _video(found)
                else:
                    read = partial(read_image, found)
                    with_alpha = partial(read_image, found, keep_alpha=True)
                    yield ImageSource(found, read, None, None, partial(read_reduced, found), read, with_alpha)
        elif isinstance(source, int):
            yield from _frames(f"webcam {source}", camera_frames(source))
        else:
            reduced = partial(read_reduced, source) if isinstance(source, bytes) else None
            with_alpha = partial(read_image, source, keep_alpha=True)
            yield ImageSource(None, partial(read_image, source), read_reduced=reduced, read_alpha=with_alpha)


def every_nth_frame(images: Iterable[ImageSource], every: int) -> Iterator[ImageSource]:
    """The images, of videos the frames 1, 1 + ``every``, 1 + 2 · ``every``, …; the others are decoded but not read."""
    return (image for image in images if image.frame is None or (image.frame - 1) % every == 0)


def is_missing(name: str) -> bool:
    """Check if a name cannot stand for an image: nothing has it, and it is not a pattern, a webcam or an address."""
    if (path := local_path(name)) is not None:
        return is_missing(path)
    is_there = name == "-" or _exists(name) or list_file(name) is not None
    return not (is_there or _is_webcam(name) or glob.has_magic(name) or "://" in name)


def is_stream(source: object) -> bool:
    """Check if a source has as many images as time passes, or as a video has frames: a webcam, or a video's name."""
    if isinstance(source, str | Path):
        name = local_path(str(source)) or str(source)
        if is_address(name):
            return _is_stream_address(name)
        return (_is_video(name) and not _is_folder(name)) or _is_webcam(name)
    return isinstance(source, int)


def _is_stream_address(address: str) -> bool:
    try:
        return is_stream_address(address)
    except ImageError:
        return False


def file_names(sources: Iterable[str]) -> Iterator[str]:
    """The names that :func:`expand` would open: each name, expanded in its turn, gives the same images.

    A source that is not there, or has nothing in it, stands for itself. A webcam, which is not a file, raises
    :class:`UsageError`.
    """
    for source in sources:
        if _is_webcam(source):
            raise UsageError(f"{source} is a webcam, or a file that does not exist", "pass files or folders")
        if source == "-" or (is_address(source) and file_of_address(source) is None):
            raise UsageError(f"{source} is not a file or folder", "pass files or folders")
        for found in _found(source):
            yield found if isinstance(found, str) else str(found.source)


def _found(name: str) -> Iterator[str | ImageSource]:
    """The files that a name stands for, and images of what is not in a file or cannot be listed."""
    if not name.strip():
        error = ImageError(f"the name of a source is empty: {name!r}", "pass an image, a folder or a video")
        yield _failed(name, error)
    elif (path := local_path(name)) is not None:
        yield from _found(path)
    elif is_address(name):
        yield from _at_address(name)
    elif (file := list_file(name)) is not None:
        yield from _in_list(file)
    elif name == "-":
        yield _standard_input()
    elif _exists(name):
        if _is_folder(name):
            message = f"{name} contains no images or videos"
            error = ImageError(message, "pass a folder that does, or the files themselves")
            yield from _or_failed(name, _below(name), error)
        else:
            yield name
    elif _is_webcam(name):
        yield from _frames(f"webcam {int(name)}", camera_frames(int(name)))
    elif glob.has_magic(name):
        message = f"{name} does not exist, and the pattern matches no image or video"
        yield from _or_failed(name, _pattern(name), ImageError(message, "check the spelling and the folder"))
    else:
        # A name may be typed composed (é) where the file system keeps it decomposed (e and an accent), or vice versa.
        forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
        there = next((form for form in forms if form != name and _exists(form)), None)
        # Reading a name that is not there raises that it does not exist.
        yield from [name] if there is None else _found(there)


def local_path(name: str) -> str | None:
    """The path of ``~/a.jpg``, which shells expand unless it is quoted, and of ``file:///a.jpg``; else ``None``."""
    path = file_of_address(name)
    if path is None and name.startswith("~") and not _exists(name):
        path = os.path.expanduser(name)  # noqa: PTH111 – it may be a pattern
    return None if path in (None, name) else path


def _in_list(file: Path) -> Iterator[str | ImageSource]:
    """What the lines of a list stand for, and a failed image for each that names nothing."""
    missing = found = 0
    hint = "write one image, folder, video or address per line"
    try:
        for number, name in listed_sources(file):
            if (is_list := list_file(name) is not None) or is_missing(name):
                missing += 1
                what = "is a list itself" if is_list else "does not exist"
                yield _failed(name, ImageError(f"{file}, line {number}: {name[:_SHOWN]} {what}", hint))
                if not found and missing == _MOST_MISSING:
                    message = f"{file}: none of its first {missing} lines names an image: it is not read on"
                    yield _failed(str(file), ImageError(message, hint))
                    return
            else:
                found += 1
                yield from _found(name)
    except (OSError, UnicodeError) as error:
        yield _failed(str(file), ImageError(f"{file} cannot be read: {why_unreadable(error)}", hint))
    if not missing and not found:
        yield _failed(str(file), ImageError(f"{file} names no images", hint))


def _at_address(address: str) -> Iterator[ImageSource]:
    """An image, or the frames of a video, which are fetched when they are read."""
    name = redacted(address)
    try:
        if is_stream_address(address):
            yield from _frames(name, address_frames(address))
        else:
            read = partial(read_address, address)
            yield ImageSource(name, read, reopen=read)
    except ImageError as error:
        yield _failed(name, error)


def _standard_input() -> ImageSource:
    """The image on standard input, read once."""
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin is not None else b""
    if len(data) > MAX_BYTES:
        return _failed("-", ImageError(f"standard input has more than {MAX_BYTES // 2**20} MiB", "pass a file"))

    def read() -> Image.Image:
        try:
            return read_image(data)
        except ImageError as error:
            hint = "send the bytes of one image, as in: hubel predict - < photo.jpg"
            raise ImageError(error.message.replace("the image", "standard input", 1), hint) from error

    return ImageSource("-", read, reopen=read)


def _or_failed(name: str, found: Iterator[str | ImageSource], error: ImageError) -> Iterator[str | ImageSource]:
    """All that was found, or, if that is nothing, an image that raises the error."""
    empty = True
    for each in found:
        empty = False
        yield each
    if empty:
        yield _failed(name, error)


def _is_webcam(name: str) -> bool:
    return name.isascii() and name.isdigit() and not _exists(name)


def _is_media(path: Path) -> bool:
    """True if a file in a folder is an image or a video, by its suffix or, where that does not tell, its content."""
    suffix = path.suffix.lower()
    if suffix in _KNOWN_SUFFIXES:
        return True
    if suffix not in _AMBIGUOUS_SUFFIXES and not file_kinds.tells_nothing(suffix):
        return False
    prefix = file_kinds.prefix_of(path)
    return file_kinds.is_image(prefix) or file_kinds.is_video(prefix)


def _is_video(name: str) -> bool:
    """True if a file is a video by its content, or by its suffix if the content is neither a video's nor an image's."""
    suffix = Path(name).suffix.lower()
    if suffix in _MOTION_JPEG_SUFFIXES:  # which begins like one JPEG
        return True
    prefix = file_kinds.prefix_of(Path(name))
    return file_kinds.is_video(prefix) or (suffix in VIDEO_SUFFIXES and not file_kinds.is_image(prefix))


def _exists(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:  # a null character
        return False


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # behind a folder that may not be entered: reading it as a file gives the error
        return False


def _below(folder: str) -> Iterator[str | ImageSource]:
    """The images and videos below a folder, and a failed image for each folder that cannot be listed."""
    failed: list[ImageSource] = []

    def note(where: Path, error: OSError) -> None:
        fault = not_listed(where, error)
        failed.append(_failed(str(where), ImageError(fault.message, fault.hint)))

    for path in files_below(Path(folder), note):
        while failed:
            yield failed.pop(0)
        if _is_media(path):
            yield str(path)
    yield from failed


def _pattern(pattern: str) -> Iterator[str | ImageSource]:
    suffix = Path(pattern).suffix
    any_suffix = bool(suffix) and not glob.has_magic(suffix)
    # Not Path.glob, which takes no absolute patterns.
    for name in sorted(glob.iglob(pattern, recursive=True), key=natural_order):  # noqa: PTH207
        if _is_folder(name):
            if "**" not in pattern:  # else the files inside fit the pattern themselves
                yield from _below(name)
        elif any_suffix or _is_media(Path(name)):
            yield name


def _frames(name: str, frames: Iterator[VideoFrame]) -> Iterator[ImageSource]:
    try:
        for frame in frames:
            yield ImageSource(name, frame.image, frame.number, frame.time)
    except ImageError as error:
        yield _failed(name, error)


def _video(name: str) -> Iterator[ImageSource]:
    """Its frames, and a failed image for each that is damaged."""
    failed: list[ImageSource] = []
    again = VideoFrames(name)
    for frame in _frames(name, video_frames(Path(name), name, lambda error: failed.append(_failed(name, error)))):
        while failed:
            yield failed.pop(0)
        yield frame if frame.frame is None else replace(frame, reopen=partial(again.read, frame.frame))
    yield from failed


def _failed(name: str, error: ImageError) -> ImageSource:
    def read() -> Image.Image:
        raise error

    return ImageSource(name, read)


def sample_photographs() -> list[Path]:
    """Paths of scikit-learn's two photographs, a palace's roof and a dahlia: RGB, 640 × 427, in every installation."""
    spec = find_spec("sklearn")  # importing scikit-learn takes seconds
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        paths = [Path(folder, "datasets", "images", name) for name in ("china.jpg", "flower.jpg")]
        if all(path.is_file() for path in paths):
            return paths
    raise DataError("scikit-learn's sample photographs are not installed", "pip install scikit-learn")


def sample_portrait() -> Path | None:
    """Path of matplotlib's portrait of Grace Hopper: RGB, 512 × 600; ``None`` where its sample data is left out.

    A photograph of the United States Navy, in the public domain.
    """
    spec = find_spec("matplotlib")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    paths = (Path(folder, "mpl-data", "sample_data", "grace_hopper.jpg") for folder in folders)
    return next(filter(Path.is_file, paths), None)


def write_in_sizes(target: Path, widths: tuple[int, ...]) -> list[Path]:
    """Write the photographs, scaled to each of the widths in pixels, as JPEG files of quality 90 into a folder."""
    paths = []
    for source in sample_photographs():
        with Image.open(source) as photograph:
            for width in widths:
                height = round(photograph.height * width / photograph.width)
                path = target / f"{source.stem}-{width}.jpg"
                photograph.resize((width, height), Image.Resampling.LANCZOS).save(path, quality=90)
                paths.append(path)
    return paths
