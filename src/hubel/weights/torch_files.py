"""What ``torch.save`` wrote, read as data: nothing that the file names is imported, called or executed.

Training scripts save more than tensors: their arguments, NumPy numbers, paths, whole modules. torch's restricted reader
stops at the first of them. Here each name that it does not know stands for an empty container, which takes what the
file says of the object and does nothing with it; the tensors beside it, and a module's own, are then read as usual.
What has no business beside weights (functions, most of Python's standard library) is refused by name.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import re
import sys
import textwrap
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hubel.errors import WeightsError

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how torch.save's files begin, since version 1.6 and before
DOWNLOAD_AGAIN = "download the file again"
ANOTHER_FILE = "use a .safetensors file, or a .pth file made by torch.save(model.state_dict(), ...)"

_MOST_NAMES = 200  # in one file; every further one costs another pass over its pickle
# Classes of Python's standard library that hold data and are found in checkpoints; all others are refused.
_STANDARD_DATA = {
    "argparse.Namespace", "types.SimpleNamespace", "collections.defaultdict", "collections.deque",
    "collections.ChainMap", "collections.UserDict", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "datetime.timezone", "decimal.Decimal", "fractions.Fraction", "uuid.UUID",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePath", "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "pathlib._local.PurePosixPath", "pathlib._local.PureWindowsPath", "pathlib._local.Path",
    "builtins.frozenset", "builtins.slice", "builtins.range", "builtins.list", "builtins.dict", "builtins.tuple",
    "builtins.int", "builtins.float", "builtins.bool", "builtins.str", "builtins.bytes", "builtins.object",
    "builtins.type", "copyreg._reconstructor", "random.Random",
}  # fmt: skip
# Functions and lower-case classes with which NumPy and torch restore data.
_FUNCTIONS_OF_DATA = re.compile(
    r"numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|numpy\.(dtype|ndarray)"
    r"|numpy\.(bool_?|float\d+|u?int\d+|str_)|numpy\.random\.\w+\.__\w+_ctor|torch\._C\._nn\.\w+"
)
_LISTS = {"collections.deque", "builtins.list"}


class _Container:
    """Stands for an object; ``__new__`` gives what torch's reader fills: it fills no other types."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _List:
    def __new__(cls, *_: Any) -> Any:
        return []


class _Opaque:
    """Stands for an object whose state is not a dictionary."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> _Opaque:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def read_torch(path: Path) -> Any:
    """The content of a file of ``torch.save``; unknown objects are empty ordered dictionaries with their attributes.

    Raises:
        WeightsError: another kind of file, a damaged one, or one that names functions or classes that hold no data.
    """
    with path.open("rb") as file:
        start = file.read(128)
    if not start.startswith((ZIP, PICKLE)):
        raise WeightsError(f"{path} is {_kind_of(start)}", ANOTHER_FILE)
    allowed: dict[str, Any] = {}
    opaque = False
    while True:
        try:
            return _read_with(path, allowed, mapped=start.startswith(ZIP))
        except pickle.UnpicklingError as error:
            name = _unknown_name(error)
            if name is None or name in allowed or len(allowed) == _MOST_NAMES:
                raise WeightsError(f"{path} is refused: {_reason(error, start, name)}", ANOTHER_FILE) from error
            _require_data(path, name, error)
            allowed[name] = _stand_in(name, opaque)
        except Exception as error:  # damaged bytes raise anything, including OSError
            if allowed and not opaque and isinstance(error, TypeError | ValueError):
                opaque = True  # an object's state that is not a dictionary
                allowed = {name: _stand_in(name, opaque) for name in allowed}
                continue
            if "TorchScript" in str(error):
                raise WeightsError(
                    f"{path} is a TorchScript program, not weights",
                    "save the weights where it was made: torch.save(model.state_dict(), ...)",
                ) from error
            raise WeightsError(f"{path} is truncated or damaged: {first_line(error)}", DOWNLOAD_AGAIN) from error


def _read_with(path: Path, allowed: dict[str, Any], mapped: bool) -> Any:
    import torch

    stand_ins: list[Any] = [(kind, name) for name, kind in allowed.items()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # torch comments on pickle protocols
        if mapped and path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:  # given the path, torch goes by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)


def _unknown_name(error: Exception) -> str | None:
    """The full name that torch's reader stopped at; None if it stopped at something else."""
    found = re.search(r"GLOBAL ([^\s]+)", str(error))
    if found is None:
        return None
    return found[1] if "." in found[1] else f"builtins.{found[1]}"  # torch leaves "builtins" out


def _stand_in(name: str, opaque: bool) -> Any:
    if name in _LISTS:
        return _List
    return _Opaque if opaque or name.startswith(("numpy.", "datetime.", "random.")) else _Container


def _require_data(path: Path, name: str, error: Exception) -> None:
    """Refuse a name that is not one of a class whose objects hold data, as far as names tell."""
    module, _, last = name.rpartition(".")
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)  # torch writes the names of Python 2
    name = f"{module}.{last}"
    if name in _STANDARD_DATA or _FUNCTIONS_OF_DATA.fullmatch(name):
        return
    if module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        reason = f"it would execute code ({name}) when it is read"
        raise WeightsError(f"{path} is refused: {reason}", ANOTHER_FILE) from error
    if not last.lstrip("_")[:1].isupper():
        reason = f"it refers to the function {name}, and functions are not loaded"
        raise WeightsError(f"{path} is refused: {reason}", ANOTHER_FILE) from error


def _reason(error: Exception, start: bytes, name: str | None) -> str:
    if name is not None:
        return f"it refers to {_MOST_NAMES} classes, and holds more than weights"
    protocol = start[1] if start.startswith(PICKLE) and len(start) > 1 else 2
    if protocol != 2 or "operand" in str(error):
        # Such a pickle may hold anything: torch's reader stops at its frame, before any name.
        return "it is damaged, or a pickle of another protocol than torch's, which could execute code when it is read"
    return "it is damaged, or holds more than tensors and could execute code when it is read"


def _kind_of(start: bytes) -> str:
    """What a file that is not torch's seems to be."""
    text = start.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights themselves (git lfs pull fetches them)"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not a weights file"
    return "empty" if not start else "not a weights file"


def first_line(error: Exception) -> str:
    """The start of a message of any length, or the error's type if the message is empty."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 150).rstrip(".") if lines else type(error).__name__
