"""Everything but the weights that rebuilds a model, and ``model.json``, which keeps it. Works without torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hubel
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError
from hubel.models.cfg_reference import is_cfg, read_cfg_model
from hubel.models.metadata_checks import check_record, read_record
from hubel.models.registry import closest, list_models, task_of
from hubel.weights.catalog import default_entry, find_entry
from hubel.weights.checksums import digest
from hubel.weights.local_cache import fetch

if TYPE_CHECKING:
    from torch import nn

    from hubel.models.base import Model
    from hubel.models.factory import SizeLimit

WEIGHTS_FILE = "model.safetensors"
METADATA_FILE = "model.json"
ENSEMBLE = "ensemble"
"""Folder of the ensemble in that of a search, with the records of a run."""


@dataclass(frozen=True)
class Backbone:
    """The backbone of a detector or segmenter, as it is built again.

    Attributes:
        architecture: registered name of the classifier.
        options: fields of its family's configuration that were replaced.
        weights: catalog name or file name of its first weights; ``None`` for random ones.
        source: library that published these, as the catalog spells it (``"keras"``), or ``None``.
    """

    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weights: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class BuildSpec:
    """The arguments of ``create_model`` for a module, which keeps them as its attribute ``origin``.

    ``options``, ``weights`` and ``source`` are as for a :class:`Backbone`; ``backbone`` is what it stands on, if that
    could be chosen.
    """

    architecture: str
    num_classes: int
    in_channels: int
    image_size: int
    options: Mapping[str, Any]
    weights: str | None
    source: str | None = None
    backbone: Backbone | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """The contents of ``model.json``. Names and numbers are the arguments of ``create_model``.

    Attributes:
        classes: their names, in the order of the outputs.
        preprocessing: from an image to the network's input.
        options: further options of ``create_model`` that differ from the architecture's own.
        hubel: the version that wrote it.
        weights: catalog name of the weights that it has or started from; None if it started from scratch.
        backbone: of an architecture that takes one.
        members: networks of an :class:`~hubel.models.ensemble.Ensemble`; 1 for a network by itself.
    """

    task: str
    architecture: str
    num_classes: int
    in_channels: int
    image_size: int
    classes: list[str]
    preprocessing: Preprocessing
    options: dict[str, Any] = field(default_factory=dict)
    hubel: str = hubel.__version__
    weights: str | None = None
    backbone: Backbone | None = None
    members: int = 1

    def build(self, for_loading: bool = False, limit: SizeLimit | None = None) -> nn.Module:
        """Build the model, in training mode; ``for_loading`` and ``limit`` as in :func:`hubel.models.factory.build`.

        Raises:
            ModelError: this version of hubel does not know the architecture or one of its options.
        """
        from hubel.models.ensemble import Ensemble
        from hubel.models.factory import build
        from hubel.models.registry import architecture

        arch = architecture(self.architecture)
        sizes = (self.num_classes, self.in_channels, self.image_size)
        networks = [
            build(arch, *sizes, self.options, self.backbone, for_loading=for_loading, limit=limit)
            for _ in range(self.members)
        ]
        return networks[0] if self.members == 1 else Ensemble(cast("list[Model]", networks))

    def to_json(self) -> dict[str, Any]:
        """The contents of ``model.json``."""
        record = {**asdict(self), "preprocessing": self.preprocessing.to_json()}
        if self.backbone is None:  # as earlier versions write and read it
            del record["backbone"]
        if self.members == 1:
            del record["members"]
        return record

    @classmethod
    def from_json(cls, record: Any, origin: str = METADATA_FILE) -> ModelMetadata:
        """The inverse of :meth:`to_json`; ``origin`` is the file, for messages.

        Raises:
            ModelError: keys are missing, unknown or of the wrong type.
        """
        again = "train or save the model again, or use an undamaged copy"
        if not isinstance(record, dict):
            raise ModelError(f"{origin}: expected a JSON object, found {type(record).__name__}", again)
        known = {entry.name for entry in fields(cls)}
        unknown = [f"{name!r:.40}"[1:-1] for name in sorted(set(record) - known)[:5]]
        if unknown:
            raise ModelError(
                f"{origin}: written by hubel {str(record.get('hubel', '?'))[:20]}, with {', '.join(unknown)}, which "
                f"hubel {hubel.__version__} does not know",
                "update hubel: pip install --upgrade hubel",
            )
        missing = sorted(known - set(record) - {"backbone", "members"})
        if missing:
            raise ModelError(f"{origin}: {', '.join(missing)} is missing", again)
        check_record(record, origin)
        preprocessing = Preprocessing.from_json(record["preprocessing"])
        backbone = Backbone(**record["backbone"]) if record.get("backbone") else None
        return cls(**{**record, "preprocessing": preprocessing, "backbone": backbone})


def read_metadata(path: Path) -> ModelMetadata:
    """Read ``model.json``; raises ``ModelError`` if it is missing or damaged."""
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: {path.parent} is not a saved model",
            "pass a run folder, or a folder with model.json and model.safetensors",
        )
    return ModelMetadata.from_json(read_record(path), str(path))


def recorded_folder(folder: Path) -> Path:
    """The folder of a search's ensemble, which has the records of a run; any other folder as it is."""
    has_own_model = (folder / METADATA_FILE).is_file() or (folder / "best").is_dir()
    return folder / ENSEMBLE if not has_own_model and (folder / ENSEMBLE / METADATA_FILE).is_file() else folder


def saved_folder(folder: Path) -> Path:
    """The folder of the saved model that one means: a run's ``best/``, a search's ``ensemble/``, or itself."""
    folder = recorded_folder(folder)
    best = folder / "best"
    return best if best.is_dir() and not (folder / METADATA_FILE).is_file() else folder


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine, by the name that was asked for.

    Attributes:
        digest: hexadecimal SHA-256 of everything its predictions depend on: weights, architecture, classes and
            preprocessing. Models with the same digest are equal.
        task: what it predicts.
        stamps: of the files that were read for it, from before they were: they change whenever a file does.
    """

    name: str
    digest: str
    task: str
    stamps: Mapping[Path, tuple[int, ...]] = field(default_factory=dict, hash=False, compare=False)

    def is_unchanged(self) -> bool:
        """True if the digest still is that of its files: nobody has written or replaced one."""
        return dict(self.stamps) == _stamps(*self.stamps)


def _stamps(*files: Path) -> dict[Path, tuple[int, ...]]:
    found: dict[Path, tuple[int, ...]] = {}
    for path in files:
        try:
            stat = path.stat()
            found[path] = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        except OSError:
            found[path] = ()
    return found


def check_reference(reference: Path | str) -> None:
    """Raise ``ModelError`` if a reference is neither a model with weights nor anything on the disk; needs no torch."""
    name, _, weights = str(reference).partition(":")
    if isinstance(reference, str) and name in list_models():
        if not weights and default_entry(name) is None:
            raise without_weights(name)
    elif is_cfg(reference):
        read_cfg_model(reference).require_weights()
    else:
        check_exists(reference)


def check_exists(reference: Path | str) -> None:
    """Raise ``ModelError`` if a reference, with weights or without, names nothing; needs no torch."""
    is_registered = isinstance(reference, str) and reference.partition(":")[0] in list_models()
    if is_cfg(reference):
        read_cfg_model(reference)
    elif not is_registered and not os.path.exists(reference):  # noqa: PTH110 – Path's raises for long names
        raise unknown_model(str(reference))


def without_weights(name: str) -> ModelError:
    """The error of a registered name that has no weights to predict with."""
    return ModelError(f"{name} has no pretrained weights", f"train it: hubel train DATA --model {name}")


def unknown_model(text: str) -> ModelError:
    """The error of a name that is neither registered nor a folder; its hint offers the closest names."""
    name = text.partition(":")[0]
    weights_of_unknown = ":" in text and not {"/", os.sep} & set(name)
    if weights_of_unknown and name not in list_models():
        return ModelError(f"unknown architecture {name!r}", closest(name))
    return ModelError(f"{text} is neither an existing folder nor a known architecture", closest(text))


def find_model(reference: Path | str) -> FoundModel | None:
    """Identify a model by its files, without torch.

    References are those of :func:`~hubel.models.checkpoint.resolve_model`. None if only that can identify the model, or
    report what is wrong.

    Raises:
        ModelError: there is no such model, or the saved model's ``model.json`` is missing or damaged.
        WeightsError: unknown weights, or they cannot be fetched.
    """
    name, _, weights = str(reference).partition(":")
    check_reference(reference)
    if isinstance(reference, str) and default_entry(name) is not None:
        entry = find_entry(f"{name}:{weights}", name) if weights else default_entry(name)
        assert entry is not None
        facts = (entry.name, entry.preprocessing.to_json(), dict(entry.settings), entry.classes)
        path = fetch(entry)
        stamps = _stamps(path)
        return FoundModel(str(reference), _digest_of(facts, digest(path)), task_of(name), stamps)
    if is_cfg(reference):
        return _find_cfg(reference)
    if isinstance(reference, str) and not {"/", os.sep} & set(reference):
        return None  # an architecture without weights, or a folder
    folder = saved_folder(Path(reference))
    record, tensors = folder / METADATA_FILE, folder / WEIGHTS_FILE
    if not record.is_file() or not tensors.is_file():
        return None
    stamps = _stamps(record, tensors)
    metadata = read_metadata(record)
    return FoundModel(str(reference), _digest_of(metadata.to_json(), digest(tensors)), metadata.task, stamps)


def _find_cfg(reference: Path | str) -> FoundModel:
    cfg = read_cfg_model(reference)
    weights = cfg.require_weights()
    stamps = _stamps(*cfg.files, weights)
    facts = (cfg.options, cfg.classes, cfg.preprocessing.to_json())
    return FoundModel(str(reference), _digest_of(facts, digest(weights)), cfg.task, stamps)


def _digest_of(facts: Any, weights: str) -> str:
    text = json.dumps([facts, weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
