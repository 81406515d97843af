"""Hindsight: the schema of its transfer archive, by which its importer reads each entry.

The package starts its whole engine when it is imported, so only the module of the schema is.
"""

import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

from bare import bare

bare("hindsight_api", "engine", "engine.transfer")

from hindsight_api.engine.transfer.schema import (  # noqa: E402
    SCHEMA_VERSION,
    TransferDocument,
    TransferFact,
    TransferManifest,
)

found = {}
for path in sorted(Path(sys.argv[1]).glob("*.zip")):
    with zipfile.ZipFile(path) as archive:
        manifest = TransferManifest.model_validate_json(archive.read("manifest.json"))
        assert manifest.schema_version == SCHEMA_VERSION
        names = sorted(name for name in archive.namelist() if name.startswith("documents/"))
        contents = [archive.read(name) for name in names]
    documents = [TransferDocument.model_validate_json(content) for content in contents]
    facts = [fact for content in contents for fact in json.loads(content)["facts"]]
    unknown = {key for fact in facts for key in fact} - TransferFact.model_fields.keys()
    found[manifest.source_bank_id] = {
        "counts": [manifest.document_count, manifest.fact_count],
        "documents": [document.model_dump(mode="json") for document in documents],
        "unknown": sorted(unknown),
    }
print(json.dumps({"version": version("hindsight-api-slim"), "banks": found}))
