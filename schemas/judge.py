"""The judge: four scores for the records of one segment, and the profile of who gives them.

Dimensions and weights are those that encoder_v0's authors report; their rubric is not published. The rubric
here is ours, the prompt of a judge profile, so its scores compare with each other and with nothing else.
"""

import json

from pydantic import BaseModel, ConfigDict, Field, ValidationError

WEIGHTS = {
    "atomicity": 0.25,
    "self_containedness": 0.30,
    "entity_coverage": 0.20,
    "evidence_alignment": 0.25,
}
MAX_SCORE = 5
MAX_REMARK_CHARS = 120


class InvalidScores(ValueError):
    """The judge's text is no judgement. The message says what is wrong with it."""


class Scores(BaseModel):
    """A judgement: each dimension 0 to 5."""

    model_config = ConfigDict(frozen=True)

    atomicity: int = Field(ge=0, le=MAX_SCORE)
    self_containedness: int = Field(ge=0, le=MAX_SCORE)
    entity_coverage: int = Field(ge=0, le=MAX_SCORE)
    evidence_alignment: int = Field(ge=0, le=MAX_SCORE)
    remark: str = ""

    @property
    def weighted(self) -> float:
        """The weighted mean, 0 to 5."""
        return sum(weight * getattr(self, name) for name, weight in WEIGHTS.items())


def scores_schema() -> str:
    """The JSON schema of a judgement, as a string. The remark stands first: it is what the scores rest on."""
    # Enums rather than bounds: every structured-output backend decodes them in one token.
    scores = {name: {"enum": list(range(MAX_SCORE + 1))} for name in WEIGHTS}
    properties = {"remark": {"type": "string", "maxLength": MAX_REMARK_CHARS}, **scores}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return json.dumps(schema, separators=(",", ":"))


def parse_scores(text: str) -> Scores:
    """Read a judgement, or raise InvalidScores. A missing dimension is never taken for a zero."""
    try:
        return Scores.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidScores(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
