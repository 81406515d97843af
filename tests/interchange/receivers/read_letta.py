"""Letta: its own reading of a MemFS folder, file by file: the label of a path, the block of a text.

The blocks are written as an agent file has them, for the way back.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from bare import bare

bare("letta", "services", "services.memory_repo")

from letta.schemas.block import Block  # noqa: E402
from letta.services.memory_repo.block_markdown import parse_block_markdown  # noqa: E402
from letta.services.memory_repo.path_mapping import memory_block_label_from_markdown_path  # noqa: E402

folder = Path(sys.argv[1])
found = {}
for user in sorted(path for path in folder.iterdir() if (path / "reference").is_dir()):
    blocks = []
    for path in sorted(path for path in user.rglob("*") if path.is_file()):
        label = memory_block_label_from_markdown_path(path.relative_to(user).as_posix())
        if label is not None:
            blocks.append(Block(label=label, **parse_block_markdown(path.read_text("utf-8"))))
    found[user.name] = [block.model_dump(mode="json") for block in blocks]
    whole = {"agents": [], "blocks": found[user.name]}
    (folder / f"{user.name}.af").write_text(json.dumps(whole), "utf-8")
print(json.dumps({"version": version("letta"), "users": found}))
