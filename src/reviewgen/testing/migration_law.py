"""The law of ``SupportsMigration``: a config that is current already is returned as it is."""

import json
from collections.abc import Callable
from typing import Any

from reviewgen.config import to_dict
from reviewgen.errors import BundleError
from reviewgen.protocols import SupportsMigration
from reviewgen.protocols.migration import read_saved_config
from reviewgen.testing.models import can

__all__ = ["migration"]


def migration(make: Callable[[], Any]) -> None:
    """SupportsMigration: ``migrate`` is a class method of the config, and returns the values of a current config unchanged."""
    model = make()
    config: Any = type(model).Config
    assert can(config, SupportsMigration) or not hasattr(type(model), "migrate"), (
        f"migrate must be a class method of {config.__name__} and not of the model: a config is also read without torch."
    )
    if not can(config, SupportsMigration):
        return
    values = json.loads(json.dumps(to_dict(model.config)))
    for version in "0", "999.0", "":
        try:
            migrated = read_saved_config(config, values, version)
        except BundleError as error:
            raise AssertionError(str(error)) from error
        assert migrated == model.config, (
            f"{config.__name__}.migrate changes the values of a current config, saved by version {version or '(none)'}: it "
            f"returns {migrated}, not {model.config}."
        )
