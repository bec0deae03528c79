"""Configurations as YAML files: a run's ``config.yaml``, and options for ``hubel train --config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.config import TrainingConfig, make_config
from hubel.errors import DataError, UsageError


def write_config(path: Path, config: TrainingConfig) -> None:
    """Write ``config.yaml``."""
    import yaml

    from hubel.fileio import write_text

    write_text(path, yaml.safe_dump(config.to_json(), sort_keys=False))


def read_config(path: Path) -> TrainingConfig:
    """Read ``config.yaml``; raises :class:`DataError` if it is missing or damaged."""
    again = "start a new run without --resume"
    try:
        return make_config(**_mapping(path))
    except UsageError as error:
        raise DataError(f"{path}: {error.message}", again) from error
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {path.parent} is not a run that can be resumed", again) from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged: it {error}", again) from error


def read_options(path: Path) -> dict[str, Any]:
    """Options by name, as ``hubel train --config`` takes them; null stands for the default.

    Raises:
        UsageError: the file cannot be read, or is not a mapping.
    """
    try:
        options = _mapping(path)
    except OSError as error:
        raise UsageError(
            f"--config {path} cannot be read: {error.strerror or error}", "pass a run's config.yaml"
        ) from error
    except ValueError as error:
        raise UsageError(f"--config {path} {error}", "write a line NAME: VALUE for each option") from error
    return {name.replace("-", "_"): value for name, value in options.items() if value is not None or name == "weights"}


def _mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file of options; raises :class:`~hubel.bounded.BoundError` if it is not one."""
    from hubel.bounded import BoundError, read_yaml

    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise BoundError("is not a mapping of options")
    return content
