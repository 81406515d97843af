"""The guards of pairs: of each, what it keeps, and the ends that it does not stop. No pair is one of those on
which the deciders are measured."""

import pytest

from cluster.consolidate.pair_guards import GUARDS, refusal
from tests.unit.cluster.consolidate.questions import memory

REASONS = {reason for guards in GUARDS.values() for reason in guards}

EARLIER = "it had happened before the older memory was told"
ONCE = "done once, it ends nothing that is done regularly"
ANOTHER = "it is about another one of the kind"
AGE = "it is about somebody of another age"
LIMITED = "it holds for a time or an occasion"
NARROWER = "it denies less than the older memory says"
ADDS = "it adds to the older memory"
PART = "it is about a part or another thing"
VERB = "both have only a verb in common"
DEPARTURE = "it is a stop or a departure"
PLACE = "it moves to another place, not to another day"
FOR_OTHERS = "it was done for somebody else"
VALUE = "it has another value"

KEPT = {
    EARLIER: [
        ("User hopes to climb Ben Nevis.", "User climbed Ben Nevis in 2009."),
        ("User works in a bakery in Ghent.", "User quit a bakery in August 2014."),
        ("User wants to see the northern lights.", "User saw the northern lights as a child."),
        ("User plays the trombone.", "User gave up the trombone for two terms back then."),
        ("User is learning to weave.", "User learned to weave twenty years ago."),
        ("User's sister Ines plans to sail to Corsica.", "User's sister Ines sailed to Corsica in 1998."),
        ("User has a canoe.", "User sold a canoe in 2017."),
        ("User is a member of the rowing club.", "User left the rowing club when he was young."),
    ],
    ONCE: [
        ("User drinks two glasses of milk a day.", "User drank four glasses of milk on his birthday."),
        ("User takes the ferry to the office.", "User took the ferry to the office at ten yesterday."),
        ("User reads a chapter of Proust each night.", "User read two chapters of Proust last night."),
        ("User visits her aunt on Sundays.", "User visited her aunt on 2026-01-14."),
        ("User rides his bike to school.", "User rode his bike to the station."),
        ("User runs ten kilometres before breakfast.", "User ran four kilometres before breakfast."),
    ],
    ANOTHER: [
        ("User has a horse.", "User's other horse was sold."),
        ("User is writing a novel.", "User finished his first novel."),
        ("User's sister is expecting a baby.", "User's second sister lost the baby."),
        ("User owns a violin.", "User gave away another violin."),
        ("User has an exam in March.", "User passed the third exam."),
        ("User runs a café.", "User closed a former café."),
        ("User has a tortoise.", "User's former tortoise died."),
    ],
    AGE: [
        ("User's son is four years old.", "User's son is eleven years old."),
        ("User's niece is two.", "User's niece is nine."),
        ("User's cousin is 31 years old.", "User's cousin is 45 years old."),
        ("User's grandson is seven years old.", "User's grandson is three years old."),
        ("User's daughter is twelve years old.", "User's daughter is 18 years old."),
        ("User's colleague is 60 years old.", "User's colleague is 24 years old."),
    ],
    LIMITED: [
        ("User drinks wine.", "User stopped drinking wine for a month."),
        ("User eats bread.", "User does not eat bread at breakfast."),
        ("User swims in the lake.", "User paused swimming in the lake until May."),
        ("User goes to the gym.", "User skipped the gym today."),
        ("User cycles to the office.", "User does not cycle to the office during the holidays."),
        ("User gives piano lessons.", "User is not giving piano lessons this week."),
        ("User eats sugar.", "User gave up sugar for three weeks."),
        ("User checks his mail.", "User does not check his mail on Sundays."),
    ],
    NARROWER: [
        ("User eats cheese.", "User does not eat cheese rind."),
        ("User sings in a choir.", "User no longer sings solos in the choir."),
        ("User likes Berta.", "User does not like Berta's cooking."),
        ("User is allergic to pollen.", "User is not allergic to pollen of birches."),
        ("User teaches yoga.", "User no longer teaches yoga to beginners."),
        ("User rides a motorbike.", "User stopped riding the motorbike to Lisbon."),
        ("User is afraid of heights.", "User is no longer afraid of heights in planes."),
        ("User speaks Danish.", "User does not speak Danish with his mother."),
    ],
    ADDS: [
        ("User speaks Portuguese.", "User now speaks Galician too."),
        ("User is allergic to cats.", "User is now also allergic to rabbits."),
        ("User plays the lute.", "User now plays the harp as well."),
        ("User teaches chemistry.", "User teaches chemistry and additionally physics now."),
        ("User works in a library.", "User works in a bar besides, now."),
        ("User keeps bees.", "User keeps goats in addition to bees now."),
    ],
    PART: [
        ("User has a boat.", "User sold the boat trailer."),
        ("User is looking for a house.", "User bought a house plant."),
        ("User wants to get a horse.", "User got a horse blanket."),
        ("User has a piano.", "User lost the piano stool."),
        ("User is learning Greek.", "User finished the Greek yoghurt."),
        ("User has a garden.", "User gave away her garden chairs."),
        ("User has a coffee grinder.", "User no longer has a coffee."),
        ("User is looking for a kitchen.", "User found a kitchen knife."),
    ],
    VERB: [
        ("User drives a tractor.", "User drives to Spain now."),
        ("User studies law.", "User studies at night now."),
        ("User's phone is a Fairphone.", "User's phone is lost now."),
        ("User wants to learn Basque.", "User learned to juggle."),
        ("User plans to buy a cottage.", "User bought a lawnmower."),
        ("User rides a mule.", "User rides the tram now."),
        ("User takes 5 mg of Warfarin.", "User takes 20 mg of Omeprazole now."),
        ("User collects stamps.", "User collects the children from school now."),
    ],
    DEPARTURE: [
        ("User has an umbrella.", "User left the umbrella on the train."),
        ("User drinks lemonade.", "User stopped for lemonade."),
        ("User has a guitar.", "User left her guitar at a friend's house."),
        ("User lives in Seville.", "User left Seville."),
        ("User eats ice cream.", "User stopped by for ice cream."),
        ("User owns a tent.", "User left the tent behind."),
        ("User lives in Cork with his aunt.", "User left Cork on Friday."),
    ],
    PLACE: [
        ("User's exam is on 12 May.", "User's exam was moved to the sports hall."),
        ("User's wedding is on 2026-08-01.", "User's wedding was moved to a barn near Ulm."),
        ("User's interview is on Tuesday.", "User's interview has been moved to Zoom."),
        ("User's concert is on 3 March.", "User's concert was moved to the church."),
        ("User has a seminar on 2026-02-20.", "User's seminar was moved to building C."),
        ("User has a check-up at 9.", "User's check-up was moved to the other clinic."),
    ],
    FOR_OTHERS: [
        ("User is looking for a flat.", "User found a flat for Marta."),
        ("User wants to buy a bicycle.", "User bought a bicycle for her daughter."),
        ("User plans to book a cruise.", "User booked a cruise for his parents."),
        ("User is looking for a tutor.", "User found a tutor for a friend."),
        ("User wants to get a visa.", "User got a visa for Ivan."),
        ("User is looking for a puppy.", "User found a puppy for the neighbour."),
    ],
}
NOT_UNITED = {
    VALUE: [
        ("User's dog is brown.", "User's dog is grey."),
        ("User's flat is cold.", "User's flat is noisy."),
        ("User likes hot soup.", "User likes cold soup."),
        ("User's bike is old.", "User's bike is fast."),
        ("User plays chess badly.", "User plays chess well."),
        ("User has a sweet tooth.", "User has a loose tooth."),
    ],
    ANOTHER: [("User's brother is tall.", "User's other brother is tall.")],
    AGE: [("User's nephew is two years old.", "User's nephew is eight years old.")],
}
ENDED = [
    # a date that is no earlier event
    ("User hopes to climb Ben Nevis.", "User climbed Ben Nevis in 2026."),
    ("User works in a bakery in Ghent.", "User quit the bakery in December 2025."),
    ("User wants to buy a Saab.", "User bought a 1994 Saab."),
    ("User has rented a canoe since 2017.", "User gave back the canoe rented since 2017."),
    ("User plans to see a doctor.", "User saw the doctor on 2025-12-01."),
    ("User plays the trombone.", "User gave up the trombone two weeks ago."),
    # a past form that is no single occasion
    ("User weighs 90 kilos.", "User weighed 81 kilos this morning."),
    ("User plans to visit Ghent.", "User visited Ghent."),
    ("User reads a chapter of Proust each night.", "User finished the chapter, and Proust, for good."),
    # another one, told of before; another try
    ("User wants to finish his first novel.", "User finished his first novel."),
    ("User is taking the driving test.", "User passed the driving test on the third try."),
    ("User has a horse.", "User sold the horse."),
    ("User has a car.", "User's new car replaced the car."),
    # a year older
    ("User's son is four years old.", "User's son is five years old."),
    ("User's son Levi is four years old.", "User's son Levi turned five."),
    ("User's father is 70 years old.", "User's father is 75 years old."),
    # denied in full
    ("User drinks wine.", "User stopped drinking wine."),
    ("User eats bread.", "User does not eat bread any more because of his stomach."),
    ("User sings in a choir.", "User no longer sings in the choir, as it was dissolved."),
    ("User goes swimming on Mondays.", "User no longer goes swimming on Mondays."),
    ("User goes swimming every Monday.", "User no longer goes swimming on Mondays."),
    ("User teaches yoga to beginners in Bonn.", "User no longer teaches yoga to beginners."),
    ("User plans to move to Lyon.", "User is not going to move to Lyon after all."),
    ("User smokes.", "User has quit smoking since 2026-01-10."),
    ("User wants to become a pilot.", "User no longer wants to become a pilot."),
    ("User has a job at night.", "User no longer has the job at night."),
    ("User likes Berta.", "User does not like Berta any more."),
    ("User works as a nurse.", "User quit nursing today."),
    ("User smokes.", "User stopped smoking yesterday."),
    ("User smokes.", "User has not smoked for two months."),
    ("User has violin lessons on Fridays.", "User no longer has violin lessons."),
    # neither besides nor a part
    ("User has a boat.", "User also sold the boat."),
    ("User is a member of a choir.", "User left the choir too."),
    ("User's commute is too long.", "User's commute is shorter now."),
    ("User has a boat.", "User sold the boat yesterday."),
    ("User has a boat.", "User sold the boat quickly."),
    ("User has a boat trailer.", "User sold the boat trailer."),
    ("User goes to a gym.", "User cancelled the gym membership."),
    ("User is looking for a house.", "User bought a house near Bath."),
    ("User is taking a French course.", "User finished the French course."),
    ("User's cat is ill.", "User's cat died."),
    ("User has a cottage in Wales.", "User gave the cottage away."),
    ("User is a freelance cook.", "User gave up freelancing."),
    ("User wants to get a parrot.", "User got a parrot called Kiki."),
    # the same verb, of the same thing or of another number
    ("User drives a tractor to the market.", "User drives a van to the market now."),
    ("User's blood pressure is 160 over 90.", "User's blood pressure is 120 over 80 now."),
    ("User gets up at 5.", "User gets up at 8 now."),
    ("User takes 5 mg of Warfarin.", "User takes 7 mg of Warfarin now."),
    ("User plans to buy a cottage.", "User bought a cottage."),
    ("User's husband is a nurse.", "User's husband is retired now."),
    ("User is unemployed.", "User is a postman now."),
    ("User's knee is swollen.", "User's knee is fine again."),
    ("User's mother is in hospital.", "User's mother is home again."),
    ("User wants to learn Basque.", "User learned Basque."),
    # gone for good
    ("User lives in Seville.", "User left Seville for good."),
    ("User lives in Cork.", "User left Cork and moved to Kerry."),
    ("User works at the port.", "User left the job at the port."),
    ("User has a guitar.", "User sold the guitar at a fair."),
    ("User has a job in Oslo.", "User left the job in Oslo."),
    ("User has a stall at the market.", "User left the stall at the market."),
    ("User lives in Seville.", "User left Seville after twenty years."),
    ("User plays in goal for Gent.", "User played her last match for Gent."),
    ("User is a partner in a law firm.", "User left the firm in March 2026."),
    ("User drinks lemonade.", "User stopped drinking lemonade."),
    # another day
    ("User's exam is on 12 May.", "User's exam was moved to 19 May."),
    ("User's exam is on 2026-05-12.", "User's exam was moved to 2026-05-19."),
    ("User's interview is on Tuesday.", "User's interview has been moved to Thursday."),
    ("User has a check-up at 9.", "User's check-up was moved to 11.30."),
    ("User's concert is on 3 March.", "User's concert was moved to next week."),
    ("User's wedding is on 2026-08-01.", "User's wedding was cancelled."),
    # for a purpose, or for whom it was meant
    ("User is looking for a flat.", "User found a flat for 700 euros."),
    ("User is looking for a flat for Marta.", "User found a flat for Marta."),
    ("User wants to buy a bicycle for her daughter.", "User bought a bicycle for her daughter."),
    ("User drives for Bolt.", "User drives for Uber now."),
    ("User wants to book a cabin.", "User booked a cabin for May."),
    ("User is looking for a desk.", "User bought a desk for the bedroom."),
]
UNITED = [
    ("User has a dog.", "User has a dog called Tilda."),
    ("User holds a pilot licence.", "User has a pilot licence."),
    ("User lives by himself.", "User lives alone."),
    ("User's cat is black.", "User's cat is black and fat."),
    ("User is studying law in Graz.", "User is a law student in Graz."),
    ("User plays chess.", "User plays chess well."),
]


def cases(pairs: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str, str]]:
    return [(reason, *pair) for reason, some in pairs.items() for pair in some]


@pytest.mark.parametrize(("reason", "older", "newer"), cases(KEPT))
def test_what_only_resembles_an_end_closes_nothing(reason, older, newer):
    assert refusal(memory(older), memory(newer, 20), "delete") == reason


@pytest.mark.parametrize(("reason", "older", "newer"), cases(NOT_UNITED))
def test_what_only_resembles_a_repeat_is_not_united(reason, older, newer):
    assert refusal(memory(older), memory(newer, 20), "unite") == reason


@pytest.mark.parametrize(("older", "newer"), ENDED)
def test_no_guard_stops_an_end(older, newer):
    assert refusal(memory(older), memory(newer, 20), "delete") == ""


@pytest.mark.parametrize(("older", "newer"), UNITED)
def test_no_guard_stops_a_repeat(older, newer):
    assert refusal(memory(older), memory(newer, 20), "unite") == ""


def test_each_guard_has_pairs_that_it_keeps():
    assert KEPT.keys() | NOT_UNITED.keys() == REASONS
    assert all(len(some) >= 6 for some in KEPT.values())
    assert len(ENDED) >= 6 * len(KEPT) - 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "用户住在杭州。",
        "🙂" * 50,
        "User is " + "²" * 3,
        "User's son is ² years old.",
        "User no longer sings" + " because" * 60 + "\nx",
        "User left the" + " in" * 2000,
        "User was moved to" + " from" * 2000 + " to",
        "User no longer" + " in 2019" * 500,
        "User has not " + "as since " * 500,
    ],
)
def test_odd_texts_are_read_and_break_nothing(text):
    for older, newer in ((text, text), (text, "User sold the boat."), ("User has a boat.", text)):
        for fate in GUARDS:
            refusal(memory(older), memory(newer, 20), fate)
