"""The formats that an ingest reads, a module each, and those that other distributions add."""

import importlib
import pkgutil

from cluster.runtime.entry_points import INGEST_FORMATS, Addition, Known
from jobs.ingest.format import Format


def _found() -> dict[str, Format]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.FORMAT.name: module.FORMAT for module in modules}


AUTO = "auto"
"""In the place of a name: the format is told by the first items."""


def _added(addition: Addition) -> Format | None:
    value = addition.value
    return value if isinstance(value, Format) and value.name == addition.entry.name else None


FORMATS = Known(
    INGEST_FORMATS,
    _found(),
    "a jobs.ingest.format.Format whose name is the entry point's",
    _added,
    reserved=(AUTO,),
)
"""name -> format, in the order of their modules, then by name."""
