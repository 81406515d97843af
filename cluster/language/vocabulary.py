"""Words that the rules know: what has one value at a time, and what a value of each attribute looks like.

A list here is a type: a value is compared only with a value of the same type ("is married" with "is single",
and with nothing else that somebody may be). A word that is missing costs a replacement, never a memory.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(" ".join(part.split()) for part in text.split(",") if part.strip())


UNIQUE_PERSONS = _words(
    """mother, mom, mum, father, dad, wife, husband, spouse, partner, fiancé, fiancée, fiance, fiancee,
    girlfriend, boyfriend"""
)
"""Relations of whom somebody has one at a time; of any other ("a friend", "a sister") there may be two."""

COUPLE = _words("wife, husband, spouse, partner, fiancé, fiancée, fiance, fiancee, girlfriend, boyfriend")

SELECTORS = _words("main, favourite, favorite, preferred, current, primary, best, native, only, usual")
"""Words before a noun that leave one thing of its kind."""

NUMERIC_THINGS = _words(
    """number, budget, rent, salary, wage, income, weight, height, size, age, limit, deductible, postcode,
    zip code, pin, mortgage, bmi, fee, quota, email, email address, e-mail address, address, username"""
)
"""Things of which somebody has one value at a time, so that a new value needs no "now"."""

MARITAL = {
    "single": "single",
    "unmarried": "single",
    "married": "married",
    "engaged": "engaged",
    "divorced": "divorced",
    "widowed": "widowed",
    "a widow": "widowed",
    "a widower": "widowed",
    "separated": "separated",
    "in a relationship": "relationship",
    "dating": "relationship",
}
MARITAL_CONFLICTS = frozenset(
    {
        *(("single", new) for new in ("married", "engaged", "relationship")),
        *(("divorced", new) for new in ("married", "engaged")),
        *(("widowed", new) for new in ("married", "engaged")),
        *(("married", new) for new in ("divorced", "single", "widowed", "engaged")),
        *(("separated", new) for new in ("married", "divorced")),
        *(("engaged", new) for new in ("married", "single")),
        *(("relationship", new) for new in ("single",)),
    }
)
"""(older, newer): being single and being divorced go together, being single and being married do not."""

DIETS = _words(
    """vegetarian, vegan, pescatarian, pescetarian, flexitarian, omnivore, carnivore, keto, ketogenic, paleo,
    low-carb, mediterranean, plant-based, raw vegan"""
)
"""One at a time. "Gluten-free", "halal" and the like are restrictions that stand beside a diet."""

OCCUPATIONS = _words(
    """accountant, actor, actress, adviser, advisor, analyst, anaesthetist, apprentice, architect, artist,
    assistant, astronomer, attorney, auditor, author, baker, banker, barber, barista, bartender,
    beekeeper, biologist, blacksmith, bookkeeper, brewer, bricklayer, broker, builder, butcher, carer,
    caretaker, carpenter, cashier, ceo, chef, chemist, clerk, coach, cobbler, conductor, consultant,
    controller, cook, copywriter, counsellor, counselor, courier, curator, decorator, dentist, designer,
    detective, developer, dietitian, director, dispatcher, doctor, driver, economist, editor, electrician,
    engineer, farmer, firefighter, fisherman, florist, freelancer, gardener, geologist, guard, guide,
    hairdresser, historian, hygienist, illustrator, inspector, instructor, interpreter, investigator,
    janitor, jeweller, joiner, journalist, judge, lawyer, lecturer, librarian, locksmith, manager,
    masseur, mechanic, midwife, miner, musician, nanny, nurse, nutritionist, officer, operator, optician,
    optometrist, painter, paralegal, paramedic, pastor, pharmacist, photographer, physician, physicist,
    physiotherapist, pilot, planner, plumber, police officer, policeman, policewoman, politician, postman,
    potter, priest, producer, professor, programmer, psychiatrist, psychologist, ranger, realtor,
    receptionist, recruiter, reporter, researcher, roofer, sailor, salesman, salesperson, scientist,
    secretary, seamstress, singer, social worker, soldier, solicitor, statistician, steward, stewardess,
    supervisor, surgeon, surveyor, tailor, teacher, technician, therapist, trainer, translator, tutor,
    undertaker, upholsterer, veterinarian, vet, waiter, waitress, welder, writer, zoologist"""
)
"""Last words of what somebody may be by profession. "Became a mother" and "became a citizen" name none."""

WORKPLACES = _words(
    """agency, airline, airport, bakery, bank, bookshop, bookstore, brewery, cafe, café, call centre, call
    center, charity, church, cinema, clinic, college, company, consultancy, daycare, factory, farm, firm,
    florist, garage, gym, hospital, hotel, insurance company, kindergarten, lab, laboratory, law firm,
    library, museum, newspaper, nursery, nursing home, pharmacy, practice, publisher, restaurant, school,
    shop, start-up, startup, store, studio, supermarket, theatre, theater, university, warehouse, zoo"""
)

COUNTED = _words(
    """kid, child, son, daughter, sibling, brother, sister, grandchild, dog, cat, pet, car, bike, chicken,
    horse, employee"""
)
"""What people have a number of, for long: "has three meetings" replaces nothing."""

COLOURS = _words(
    """blue, green, red, yellow, black, white, orange, purple, pink, brown, grey, gray, turquoise, teal,
    violet, navy, beige, gold, silver, lilac, indigo, magenta"""
)

NO_EMPLOYERS = _words(
    """night, noon, home, charity, free, work, school, weekends, dawn, dusk, room, chapter, level, season,
    part, table, desk, floor, gate, lake, mount, team, episode, lesson, page, step"""
)
"""Words with a capital behind "works at" that begin no employer's name."""

NUMERALS = dict(
    zip(
        """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty""".split(),  # noqa: SIM905 - a list of words is read more easily
        range(1, 21),
        strict=True,
    )
)

PAST = dict(
    pair.split()
    for pair in """
        bought buy, found find, got get, moved move, went go, took take, sold sell, began begin, started
        start, adopted adopt, learned learn, learnt learn, passed pass, ran run, wrote write, read read,
        built build, left leave, quit quit, saw see, met meet, became become, visited visit, made make,
        finished finish, hired hire, booked book, rented rent, joined join, married marry, opened open,
        published publish, repaired repair, fixed fix, switched switch, ordered order, applied apply,
        renewed renew, signed sign, completed complete, launched launch, painted paint, planted plant,
        cancelled cancel, canceled cancel, climbed climb, travelled travel, traveled travel, flew fly, gave
        give, grew grow, enrolled enrol, registered register, installed install, replaced replace, upgraded
        upgrade, returned return, watched watch, tried try, swam swim, won win
    """.split(",")  # noqa: SIM905 - pairs are read more easily
)
"""Past forms of what people intend to do, by the verb of the intention."""
