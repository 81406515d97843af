"""The deciders without a language model, and so without a profile: those that ship and those of others."""

import ast
import contextlib
import functools
import importlib.util
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from cluster.consolidate.crosspairs import BASE, CrossPairModel, crosspairs_fingerprint
from cluster.consolidate.fold import Question, Verdict
from cluster.consolidate.pairs import PairDecider, decider_fingerprint, pairs_fingerprint
from cluster.consolidate.rules import Rules, rules_fingerprint
from cluster.models.fingerprint import is_module, source_fingerprint
from cluster.models.sources import model_folder
from cluster.runtime.entry_points import DECIDERS, Addition, EntryPointError, Known
from cluster.store.crash_markers import WorkerSick
from schemas.decision import ACTIONS


class Decider(Protocol):
    """What decides questions, loaded."""

    @property
    def num_calls(self) -> int:
        """Calls of a model so far."""

    def decide(self, questions: list[Question]) -> list[Verdict]:
        """A verdict of each question."""


def cross_pair_decider() -> PairDecider:
    """The decider `crosspairs`, loaded. ModelError where its base's package is not installed."""
    return PairDecider(_cross_pair_model(model_folder(BASE, None)))


@functools.cache
def _cross_pair_model(base: Path) -> CrossPairModel:
    """Loaded once a process, which may run several consolidations."""
    return CrossPairModel.load(base)


# --- those of other distributions -----------------------------------------------------------------------


class AddedDecider:
    """A decider of another distribution, held to what a decider must give.

    WorkerSick where it fails, or gives something else than a verdict of each question.
    """

    def __init__(self, addition: Addition):
        self._origin = addition.origin
        with self._blamed():
            self._inner = addition.value()

    @property
    def num_calls(self) -> int:
        """Where it counts none, it makes none."""
        return getattr(self._inner, "num_calls", 0)

    def decide(self, questions: list[Question]) -> list[Verdict]:
        with self._blamed():
            verdicts = list(self._inner.decide(questions))
            if len(verdicts) != len(questions):
                raise ValueError(f"{len(verdicts)} verdicts on {len(questions)} questions; give one each")
            if wrong := [one for one in verdicts if not is_verdict(one)]:
                raise ValueError(f"{wrong[0]!r}: must be a Verdict, its action one of {ACTIONS}")
        return verdicts

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            raise WorkerSick(f"{self._origin}: {type(error).__name__}: {error}") from error


def is_verdict(verdict: object) -> bool:
    """Whether the fold can go on from it. What is refused or failed changes nothing, whatever its action."""
    return isinstance(verdict, Verdict) and (verdict.outcome != "applied" or verdict.action in ACTIONS)


def added_fingerprint(addition: Addition) -> str:
    """16 hex digits over the files of the package that a decider is in, what they import of this project,
    and which of them it is. EntryPointError where there is no source to read."""
    module = addition.entry.module
    try:
        files = package_files(module)
        texts = [file.read_text(encoding="utf-8") for file in files if file.suffix == ".py"]
        ours = {name for text in texts for name in _imported(text)}
        source = source_fingerprint(module, *sorted(ours))
    except (AssertionError, OSError, SyntaxError, ValueError) as error:
        raise EntryPointError(
            f"{addition.origin}: the source of {module} cannot be read ({error}); expected modules in "
            "Python, whose text tells the decisions of one version from those of another"
        ) from error
    return decider_fingerprint(source, files, addition.entry.value)


def package_files(module: str) -> list[Path]:
    """Files of the outermost package that a module is in, data included, sorted; of a module in none, its
    own."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = importlib.util.find_spec(".".join(parts[:depth]))
        # A namespace is no package: other distributions may have parts of it.
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin)
            if path.name != "__init__.py":
                return [path]
            inner = path.parent.rglob("*")
            return sorted(one for one in inner if one.is_file() and "__pycache__" not in one.parts)
    raise ValueError(f"{module} has no file")


def _imported(text: str) -> Iterator[str]:
    """Modules of this project that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from filter(is_module, (one for one in found if one.split(".")[0] in ("cluster", "schemas")))


def _maker(addition: Addition) -> Callable[[], Decider] | None:
    """None where it is something else than EXPECTED."""
    value = addition.value
    if not (isinstance(value, type) and callable(getattr(value, "decide", None))):
        return None
    return functools.partial(AddedDecider, addition)


def _fingerprint(addition: Addition) -> Callable[[], str] | None:
    return functools.partial(added_fingerprint, addition) if _maker(addition) else None


# --- all of them ------------------------------------------------------------------------------------------

EXPECTED = "a class without required arguments that has decide(questions) -> list[Verdict]"
"""What an entry point of a decider is; Question and Verdict are those of cluster.consolidate.fold."""

WITHOUT_MODEL: Known[Callable[[], Decider]] = Known(
    DECIDERS,
    {"rules": Rules, "pairs": PairDecider, "crosspairs": cross_pair_decider},
    EXPECTED,
    _maker,
    reserved=("model",),
)
"""Deciders that need no profile: nothing of them has to be started, and they cost nothing."""

FINGERPRINTS: Known[Callable[[], str]] = Known(
    DECIDERS,
    {"rules": rules_fingerprint, "pairs": pairs_fingerprint, "crosspairs": crosspairs_fingerprint},
    EXPECTED,
    _fingerprint,
    reserved=("model",),
)

LOADED = ("crosspairs",)
"""Those of WITHOUT_MODEL that have a network to load: actors keep it, on a GPU where the cluster has some."""


def load_decider(kind: str) -> Decider:
    """One of WITHOUT_MODEL. WorkerSick where this worker has it not, or not as it should be."""
    try:
        return WITHOUT_MODEL[kind]()
    except KeyError:
        raise WorkerSick(
            f"no distribution on this worker adds the decider {kind!r}; install it there, by pip of [cluster]"
        ) from None
    except EntryPointError as error:
        raise WorkerSick(str(error)) from error
