"""De-identification: what a training set says about who its users are, apart from what they tell.

User and session ids become pseudonyms, in the prompts of fact_qa as well; e-mail addresses and phone numbers
become markers, in prompt and answer alike. Secrets are gone before. Names stay: they are what is remembered.
"""

import hashlib
import re

_MARKERS = {
    "[email]": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    # With a country's prefix, or three, three and four digits; a date is neither.
    "[phone]": re.compile(
        r"(?<![\w+])\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,5}(?!\w)"
        r"|(?<![\w.])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w)"
    ),
}


def pseudonym(name: str, seed: int) -> str:
    """The same for the same name and seed. Who knows the seed can test a guess."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()[:12]


def without_contacts(text: str) -> str:
    """The text with markers for e-mail addresses and phone numbers."""
    for marker, pattern in _MARKERS.items():
        text = pattern.sub(marker, text)
    return text


def deidentified(example: dict, seed: int) -> dict:
    """A row of TRAINING_SCHEMA, or of REJECTED_SCHEMA, that no longer names its user."""
    user_id, session_id = example["user_id"], example["session_id"]
    alias = f"user-{pseudonym(user_id, seed)}"
    known = re.compile(rf"(?<!\w){re.escape(user_id)}(?!\w)") if example.get("task") == "fact_qa" else None

    def cleaned(text: str) -> str:
        return without_contacts(known.sub(alias, text) if known else text)

    changed = {
        "user_id": alias,
        "session_id": session_id and f"session-{pseudonym(f'{user_id} {session_id}', seed)}",
    }
    for name in ("completion", "candidate", "detail"):
        if name in example:
            changed[name] = cleaned(example[name])
    if "messages" in example:
        changed["messages"] = [
            {"role": message["role"], "content": cleaned(message["content"])}
            for message in example["messages"]
        ]
    return example | changed
