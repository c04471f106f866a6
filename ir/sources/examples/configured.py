"""Values of a configuration, wherever in it they stand."""

from __future__ import annotations

from typing import Any

IMAGE = 224  # rows and columns where a configuration says nothing


def configured_value(config: Any, *names: str) -> Any:
    """The first of these fields in the configuration or those inside it; None if there is none."""
    for owner in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        for name in names:
            if (value := getattr(owner, name, None)) is not None:
                return value
    return None


def configured_image_size(config: Any) -> tuple[int, int]:
    """Rows and columns of the images that a model takes."""
    size = configured_value(config, "image_size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return IMAGE, IMAGE
