"""What the cards of adapters and of evolvable models share."""


def hub_line(config: dict) -> str:
    """Line of the front matter that names the base, for a base that a hub has; `config` is the manifest's."""
    is_of_hub = not config["base"].startswith(("package:", "/", "."))
    return f"base_model: {config['base']}\n" if is_of_hub else ""


def recipe_of(manifest: dict, what: str = "") -> str:
    """How it was trained; `what` says of what a batch is."""
    config, recipe = manifest["config"], manifest["config"]["recipe"]
    batch = f"{recipe['batch_size']} x {recipe['accumulation']} x {config['workers']['num_workers']}{what}"
    return (
        f"{manifest['num_steps']} steps of {batch}, learning rate {recipe['learning_rate']} "
        f"({recipe['schedule']}, warm-up {recipe['warmup']}), {recipe['dtype']}, seed {recipe['seed']}"
    )


def table(values: dict, left: str, right: str) -> str:
    """A Markdown table of two columns."""
    lines = [
        f"| {left} | {right} |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in values.items()),
    ]
    return "\n".join(lines)
