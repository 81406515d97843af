"""What must stay forgotten: keyed hashes of users, sessions and turns that no backfill may bring back.

The archive may still hold what a store was told to forget. Cutting asks here before it makes segments.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cluster.files import HOME, Files

BLANK = "[forgotten]"
"""Stands for a forgotten turn, so that the turns behind it keep their numbers."""

_LIST = "list.json"


@dataclass(frozen=True)
class Forgotten:
    """The list of one store. It holds hashes only, keyed with a salt of the store."""

    salt: str
    keys: frozenset[str]

    @classmethod
    def of_store(cls, uri: str) -> "Forgotten":
        """The store's list; an empty one where nothing was ever forgotten."""
        files = Files(uri, "forgotten")
        found = files.get_json(_LIST)
        if found is None and files.exists(_LIST):
            from cluster.store import StoreError

            # An empty list would bring back, without a word, what was to stay forgotten.
            raise StoreError(
                f"{uri}/{HOME}/forgotten/{_LIST}: empty or cut off, so that nobody knows what must stay "
                "forgotten; restore the file from a backup, or delete it and forget those users again before "
                "the next backfill"
            )
        found = found or {"salt": secrets.token_hex(16), "keys": []}
        return cls(found["salt"], frozenset(found["keys"]))

    def with_keys(self, keys: list[str]) -> "Forgotten":
        return Forgotten(self.salt, self.keys | set(keys))

    def save(self, uri: str) -> None:
        Files(uri, "forgotten").put_json(_LIST, {"salt": self.salt, "keys": sorted(self.keys)})

    def key(self, *parts: str | int) -> str:
        """32 hex digits for a user (id), session (user, id), turn (user, session, index) or its text."""
        content = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
        return hmac.digest(self.salt.encode(), content.encode("utf-8", "replace"), hashlib.sha256).hex()[:32]

    def asked_key(self, table: str, key: str) -> str:
        """Key of a session or memory that was forgotten by its id alone, whoever's it was."""
        return self.key("asked", table, key)

    def has_asked(self, table: str, key: str) -> bool:
        """Whether a forgetting of this id was asked for before: the same command may come twice."""
        return self.asked_key(table, key) in self.keys

    def has_session(self, user_id: object, session_id: object) -> bool:
        """Whether the session, or all of its user, is forgotten."""
        if not self.keys or not isinstance(user_id, str):
            return False
        if self.key("user", user_id) in self.keys:
            return True
        return isinstance(session_id, str) and self.key("session", user_id, session_id) in self.keys

    def blank_turns(self, session: dict) -> int:
        """Put BLANK for the forgotten turns of an archive row; returns how many there were.

        A turn is known by its place and by its text, because an edited archive may move it.
        """
        if not self.keys:
            return 0
        ids, count = (session["user_id"], session["session_id"]), 0
        for number, turn in enumerate(session["turns"]):
            if {self.key("turn", *ids, number), self.key("text", *ids, turn["content"])} & self.keys:
                turn["content"] = BLANK
                count += 1
        return count
