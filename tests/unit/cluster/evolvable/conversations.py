"""Small conversations with questions, for tests of loss and training."""

from cluster.train.evolvable_samples import histories_of, reading_of
from cluster.train.settings import EvolvableSettings
from tests.tiny import tiny_tokens

CITIES = ("Lyon", "Oslo", "Quito", "Turin", "Perth", "Osaka", "Cairo", "Delhi")
SETTINGS = EvolvableSettings(pass_tokens=2000)


def sample(number: int, num_turns: int = 6) -> dict:
    """Every exchange names a place; the question names one of them."""
    places = [CITIES[(number + turn) % len(CITIES)] for turn in range(num_turns)]
    wanted = number % num_turns
    messages = []
    for place in places:
        messages += [{"role": "user", "content": f"in {place}"}, {"role": "assistant", "content": "ok"}]
    question, answer = f"{places[wanted]}?", f"turn {wanted}"
    turns = [f"User: in {place}\nAssistant: ok" for place in places]
    return {
        "messages": [
            *messages,
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "meta": {"turns": [*turns, question], "evidence_turns": [wanted]},
    }


def readings(*samples: dict):
    return [reading_of(history, tiny_tokens()) for history in histories_of(samples, "train")[0]]
