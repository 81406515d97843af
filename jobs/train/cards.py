"""What the cards of adapters and of evolvable models share."""

PAGE = "training.html"
"""Beside the card, which names it: the curves of the training."""

Curves = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
"""Title of a chart and its lines: key in metrics.jsonl, label."""


def front_matter(config: dict, **more: object) -> str:
    """What model hubs read of a card, as YAML: the licence, the base where a hub has it, and more fields of
    huggingface_hub.ModelCardData. `config` is the manifest's."""
    from huggingface_hub import ModelCardData

    is_of_hub = not config["base"].startswith(("package:", "/", "."))
    base = {"base_model": config["base"]} if is_of_hub else {}
    return ModelCardData(license=config["licence"], **base, **more).to_yaml()
