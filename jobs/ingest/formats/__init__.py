"""The formats that an ingest reads, a module each. A new module with a FORMAT is a new format."""

import importlib
import pkgutil

from jobs.ingest.format import Format


def _found() -> dict[str, Format]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.FORMAT.name: module.FORMAT for module in modules}


FORMATS = _found()
"""name -> format, in the order of their modules."""
