"""What all settings of jobs, workers and trainings share."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of a table of settings: frozen, unknown keys refused; the text below a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
