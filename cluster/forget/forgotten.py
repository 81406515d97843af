"""What must stay forgotten: keyed hashes of users, sessions and turns that no backfill may bring back.

The archive may still hold what a store was told to forget. Cutting asks here before it makes segments.

The hashes are keyed twice: with a salt that lies beside them, and with the operator's secret, which does not.
Without a secret, whoever can read the store can check whether an id that they guess is on the list. A list
that was made without one takes it at any later forgetting: its hashes are hashed again, so that they stay
valid and the old ones are gone.

A changed list is a new file with the next number, which only one of two writers can create: who slept between
reading and writing never puts an older list in the place of a longer one. Then the older file goes.
"""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.store.errors import StoreError
from cluster.store.files import HOME, Files, Numbered

BLANK = "[forgotten]"
"""Stands for a forgotten turn, so that the turns behind it keep their numbers."""

WITHHELD = "withheld: it may be of what this store was told to forget; see the archive"
"""Stands for the content of a bad row of which nobody can tell whose it is."""

MIN_SECRET_CHARS = 16

_FIRST, _NAMES = "list.json", Numbered("list-")
"""How the file of a list is named: the first one without a number."""

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Listed(BaseModel):
    """The list as its file has it. What looks otherwise is damaged, and must not pass for a shorter list."""

    model_config = ConfigDict(strict=True, extra="forbid")

    salt: _Hex
    keys: list[_Hex]
    secret_check: _Hex | None = None


def _refuse_list(uri: str, number: int, problem: str, without_backup: str) -> NoReturn:
    raise StoreError(
        f"{uri}/{HOME}/forgotten/{_path(number)}: {problem}, so that nobody knows what must stay forgotten; "
        f"restore the file from a backup. Without one, {without_backup} again, before the next backfill, "
        "every user and session that was forgotten (jobs.forget --in-advance), and of a forgotten memory its "
        "session"
    )


def _path(number: int) -> str:
    return _NAMES.path(number) if number else _FIRST


def _numbered(files: Files) -> dict[int, str]:
    """Number -> path of every file of a list, the newest last."""
    numbers = {path: 0 if path == _FIRST else _NAMES.number(path) for path in files.paths()}
    found = sorted((number, path) for path, number in numbers.items() if number is not None)
    return dict(found)


@dataclass(frozen=True)
class Forgotten:
    """The list of one store."""

    salt: str
    keys: frozenset[str]
    secret: bytes | None = field(default=None, repr=False)
    number: int = field(default=-1, compare=False)
    """Of the file that it was read from; -1 where there was none."""

    @classmethod
    def of_store(cls, uri: str, secret: str | None = None, *, may_begin: bool = True) -> "Forgotten":
        """The store's list; an empty one where nothing was ever forgotten. StoreError for a damaged one, or
        without the secret that it is keyed with. Who only asks what is forgotten may not begin a new list
        where one was lost: also a StoreError."""
        known, check = cls._read(uri)
        if known is None and not may_begin and Files(uri, "receipts").paths():
            _refuse_list(uri, 0, "lost: the store has receipts of forgettings", "forget")
        known = known or cls(secrets.token_hex(16), frozenset())
        if secret is None and check is None:
            return known
        if secret is None:
            raise StoreError(
                f"{uri}: its list of who is forgotten is keyed with the operator's secret; give it as it was "
                "given to jobs.forget (forget_key_env or forget_key_file), or erased text comes back"
            )
        keyed = replace(known, secret=secret.encode())
        if check is None:
            return replace(keyed, keys=frozenset(map(keyed._with_secret, known.keys)))
        if not hmac.compare_digest(check, keyed._check()):
            raise StoreError(
                f"{uri}: its list of who is forgotten is keyed with another secret than the one given; give "
                "the one that jobs.forget was given first: hashes cannot be moved to a new one"
            )
        return keyed

    @classmethod
    def _read(cls, uri: str) -> tuple["Forgotten | None", str | None]:
        """The list and the check of its secret, None where there is no such file."""
        files = Files(uri, "forgotten")
        while found := _numbered(files):
            number, path = found.popitem()
            # Gone since it was listed, there is a newer one.
            if (data := files.get(path)) is not None:
                break
        else:
            return None, None
        try:
            listed = _Listed.model_validate_json(data)
        except ValidationError as error:
            # A list that is read as far as it goes would bring back, without a word, what is behind that.
            first = error.errors(include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            _refuse_list(
                uri,
                number,
                f"damaged ({f'{place}: ' if place else ''}{first['msg']})",
                "delete it and forget",
            )
        return cls(listed.salt, frozenset(listed.keys), number=number), listed.secret_check

    def with_keys(self, keys: list[str]) -> "Forgotten":
        return replace(self, keys=self.keys | set(keys))

    def save(self, uri: str) -> None:
        """Put the list in the place of what it was read as. StoreError when that has changed since."""
        check, (known, known_check) = self._check() if self.secret else None, self._read(uri)
        is_there = (
            known is not None and (known.salt, known_check) == (self.salt, check) and self.keys <= known.keys
        )
        if not is_there and not self._put(uri, self, check):
            raise StoreError(
                f"{uri}: another job has changed the list of who is forgotten while this one was stopped; "
                "run the same command again"
            )

    @staticmethod
    def _put(uri: str, forgotten: "Forgotten", check: str | None) -> bool:
        """Whether this is the list now; another one has taken its number otherwise."""
        listed = {"salt": forgotten.salt, "keys": sorted(forgotten.keys)}
        data = json.dumps(listed | ({"secret_check": check} if check else {})).encode()
        files, number = Files(uri, "forgotten"), forgotten.number + 1
        if not files.claim(_path(number), data):
            return False
        found = _numbered(files)
        if max(found) != number:
            # So many may have changed it meanwhile that this number was free again.
            return False
        files.delete([path for other, path in found.items() if other < number])
        return True

    def made_with(self) -> dict:
        """What `remember` needs to know of the list that hashes were made for."""
        return {"salt": self.salt, "secret_check": self._check() if self.secret else None}

    @staticmethod
    def remember(uri: str, hashes: list[str], made_with: dict) -> None:
        """Put hashes on the list that is there. They were made with its secret; this needs none.

        Of a list that was deleted since, a new one is made that they are valid on. StoreError for another
        list, on which they would say nothing.
        """
        while True:
            known, check = Forgotten._read(uri)
            if known is None:
                known, check = Forgotten(made_with["salt"], frozenset()), made_with["secret_check"]
            elif set(hashes) <= known.keys:
                return
            if known.salt != made_with["salt"]:
                _refuse_list(
                    uri,
                    known.number,
                    "not the one that an interrupted forgetting has hashes for",
                    "delete it, to have that one finished, and then forget",
                )
            if Forgotten._put(uri, known.with_keys(hashes), check):
                return

    def key(self, *parts: str | int) -> str:
        """32 hex digits for a user (id), session (user, id), turn (user, session, index) or its text."""
        # Doubled, so that a NUL in an id cannot make two ids of one.
        named = (f"{type(part).__name__}:{part}".replace("\0", "\0\0") for part in parts)
        content = "\0".join(named).encode("utf-8", "surrogatepass")
        salted = hmac.digest(self.salt.encode(), content, hashlib.sha256).hex()[:32]
        return self._with_secret(salted) if self.secret else salted

    def _with_secret(self, salted: str) -> str:
        assert self.secret is not None
        return hmac.digest(self.secret, salted.encode(), hashlib.sha256).hex()[:32]

    def _check(self) -> str:
        """Tells a wrong secret from the right one. It is no entry: none is made of this word."""
        return self._with_secret(f"check of {self.salt}")

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

    def has(self, user_id: str, session_id: str | None, record_id: str | None) -> bool:
        """Whether just this, or all of its user, is forgotten."""
        return self.has_asked("records", record_id) if record_id else self.has_session(user_id, session_id)

    def may_show(self, user_id: object, session_id: object, shown: str) -> bool:
        """Whether `shown`, the content of a row that cannot be used, may hold something that is forgotten.

        Without both ids nobody can tell. With them, it may where a turn of the session is forgotten.
        """
        if not self.keys:
            return False
        if not (isinstance(user_id, str) and user_id.strip()):
            return bool(shown)
        if not (isinstance(session_id, str) and session_id.strip()):
            return bool(shown)
        # Every turn that is shown has a brace of its own.
        numbers = range(shown.count("{") + 1)
        return any(self.key("turn", user_id, session_id, number) in self.keys for number in numbers)

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
