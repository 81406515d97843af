"""cognee: its reader of a COGX archive, a module that imports nothing of the rest of the package."""

import json
import sys
from importlib.metadata import version

from bare import bare

bare("cognee", "modules", "modules.migration")

from cognee.modules.migration.cogx import read_archive, read_manifest  # noqa: E402

manifest = read_manifest(sys.argv[1])
records = [record.model_dump(mode="json") for record in read_archive(sys.argv[1])]
print(
    json.dumps(
        {"version": version("cognee"), "manifest": manifest.model_dump(mode="json"), "records": records}
    )
)
