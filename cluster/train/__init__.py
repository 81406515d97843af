"""Training of LoRA adapters under Ray Train."""
