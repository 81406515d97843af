"""An endpoint that grades, or encodes, as it is asked."""

import json

from tests import endpoint as served


def grades_or_records(messages: list[dict]) -> str:
    if "<RECORDS>" not in messages[-1]["content"]:
        return served.by_rules(messages)
    good = len(messages[-1]["content"]) % 3 > 0
    names = ("atomicity", "self_containedness", "entity_coverage", "evidence_alignment")
    return json.dumps({"remark": "", **dict.fromkeys(names, 5), "atomicity": 5 if good else 0})
