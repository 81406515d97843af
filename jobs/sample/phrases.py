"""What the people of the sample world have, say and ask: names, values and sentence templates.

Templates are filled by `world`: {v} the value, {old} the value before it, {av} and {aold} the same with
a/an, {when} a day. Statements and requests are whole sentences, so that either may come first in a turn.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """A statement about somebody else that resembles the user's own fact, and must not change it."""

    key: str
    """Becomes the fact key: sister-city."""
    say: str
    semantic: str
    noun: str
    """How a question names it: my sister's home city."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One kind of memory: what values it takes and how people put it into words."""

    key: str
    memory_type: str
    values: tuple[str, ...]
    says: tuple[str, ...]
    """Statements of a first value; true of any value at any time, so that they can be repeated later."""
    semantic: str
    asks: tuple[tuple[str, str], ...]
    """Request of the user, reply of the assistant."""
    tags: tuple[str, ...]
    question: str
    noun: str
    """How a question about several facts names it: my home city."""
    entity: str = "value"
    """What of the value is an entity: value, last (its last word) or none."""
    changes: tuple[str, ...] = ()
    """Statements that end {old}; empty for what does not change."""
    changed: str = ""
    """Semantic text after a change; the plain one where empty."""
    past_question: str = ""
    count_question: str = ""
    probe: tuple[str, str] | None = None
    """The assistant asks back, the user answers in a fragment that only makes sense with the question."""
    lookalikes: tuple[Lookalike, ...] = ()


def words(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


def lines(text: str) -> tuple[str, ...]:
    """The lines of a block."""
    return tuple(line.strip() for line in text.strip().splitlines() if line.strip())


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """A block of lines, each followed by its reply behind `>`."""
    block = lines(text)
    if not all(reply.startswith("> ") for reply in block[1::2]) or len(block) % 2:
        raise ValueError(f"pairs: {block[:2]}...: every line needs a reply, a line that starts with '> '")
    return tuple((line, reply[2:]) for line, reply in zip(block[::2], block[1::2], strict=True))


def combine(first: tuple[str, ...], second: tuple[str, ...], pattern: str = "{} {}") -> tuple[str, ...]:
    """Every first word with every second word; neighbours in the result differ in both."""
    shifts = range(len(second))
    return tuple(
        pattern.format(first[(row + shift) % len(first)], second[shift])
        for row in range(len(first))
        for shift in shifts
    )


FIRST_NAMES = words(
    """Ada, Amir, Anouk, Asel, Bela, Bruno, Carmen, Chidi, Clara, Dario, Devi, Elif, Emil, Esra, Farah,
    Felix, Gita, Goran, Hana, Hugo, Ilse, Imran, Ines, Ivan, Jana, Jonas, Kaito, Karim, Kira, Lars,
    Leila, Linh, Luca, Mabel, Malik, Marta, Mei, Mira, Nadia, Nils, Noor, Nora, Olga, Omar, Oscar,
    Petra, Priya, Quentin, Rafael, Renu, Rosa, Ruben, Sanna, Selma, Simon, Soren, Tamar, Tariq,
    Teresa, Theo, Uma, Vera, Viktor, Wanda, Wei, Xenia, Yara, Yusuf, Zara, Zoltan"""
)
LAST_NAMES = words(
    """Abara, Adler, Akintola, Barros, Bergman, Castell, Chowdhury, Dekker, Demir, Eriksen, Farrow,
    Fontaine, Galvan, Haddad, Hoang, Ibarra, Jansen, Kovac, Kaur, Lindqvist, Lombardi, Marsh, Mbeki,
    Moreau, Nakata, Novak, Okafor, Ortega, Pavic, Quist, Rahimi, Rossi, Sandoval, Sato, Szabo,
    Tanaka, Thorne, Ueda, Varga, Vance, Weiss, Xu, Yilmaz, Zeller"""
)
CITIES = words(
    """Beijing, Shanghai, Lisbon, Oslo, Nairobi, Toronto, Lyon, Edinburgh, Osaka, Valencia, Austin,
    Melbourne, Ghent, Tallinn, Cape Town, Porto, Seoul, Montreal, Leipzig, Bologna, Helsinki, Accra,
    Hanoi, Denver, Dublin, Zagreb, Kyoto, Lima, Rotterdam, Graz, Bergen, Pune, Chicago, Auckland,
    Utrecht, Seville, Riga, Taipei, Bristol, Nantes, Mendoza, Portland, Brno, Turin, Kigali,
    Antwerp, Busan, Halifax, Malaga, Aarhus, Chennai, Boston, Glasgow, Ljubljana, Marseille,
    Kampala, Shenzhen, Bilbao, Vilnius, Perth, Zürich, Göteborg, São Paulo, Kraków"""
)
JOBS = words(
    """nurse, carpenter, tax adviser, bus driver, architect, pastry chef, school teacher, data analyst,
    paramedic, translator, plumber, optician, librarian, civil engineer, sound technician, florist,
    pharmacist, journalist, welder, physiotherapist, web developer, park ranger, dental hygienist,
    stage designer, train dispatcher, beekeeper, surveyor, social worker, illustrator, electrician,
    museum guide, brewer"""
)
EMPLOYERS = combine(
    words(
        """Northgale, Brambleford, Tidewick, Cobaltine, Ferrowen, Larkmoor, Quillhaven, Sandrel,
        Umberlane, Vantree, Wexcombe, Yarrowby, Ostermill, Pinecroft"""
    ),
    words("""Logistics, Robotics, Foods, Textiles, Energy, Press, Diagnostics, Tools, Gardens"""),
)
PETS = combine(
    words(
        """beagle, tabby cat, parrot, grey rabbit, tortoise, dachshund, black cat, hamster, terrier,
        cockatiel, ginger kitten"""
    ),
    words(
        """Biscuit, Miso, Pickle, Juno, Waffle, Ziggy, Tofu, Clover, Pepper, Nimbus, Olive, Sprout,
        Toffee"""
    ),
    "{} called {}",
)
CARS = combine(
    words("blue, silver, red, white, dark green, yellow, black"),
    words(
        """Corvell Tera, Hanzo Miro, Velk 40, Asteron Coupe, Drayton Fox, Luma Van, Orro Estate, Pallas
        Mini, Sorrel Hatchback"""
    ),
)
DIETS = words(
    """vegetarian, vegan, pescatarian, low-carb, gluten-free, dairy-free, Mediterranean, paleo,
    low-sodium, ketogenic, high-protein, flexitarian, lactose-free, plant-based, sugar-free"""
)
HOBBIES = words(
    """pottery, bouldering, bird watching, watercolour painting, fencing, chess, baking sourdough,
    kayaking, playing the cello, origami, astronomy, salsa dancing, woodcarving, knitting, archery,
    geocaching, film photography, table tennis, bookbinding, mushroom foraging, open-water swimming,
    model railways, calligraphy, improv theatre, ice skating, beekeeping"""
)
PHONES = combine(
    words("Nuvio, Calder, Plexa, Ohmi, Ravello, Sirin, Tokko"),
    words("X2, Mini 5, Ultra 9, Lite, Fold, One, S30, Note 8"),
)
GYM_TIMES = combine(
    words(
        """Mondays and Wednesdays, Tuesdays and Thursdays, Wednesdays and Fridays, Mondays and Fridays,
        Tuesdays and Saturdays, Thursdays and Sundays, Saturdays and Sundays"""
    ),
    words("at 7 am, at noon, at 6 pm, at 8 pm, at 6 am, at 5 pm"),
)
TOOL_NAMES = combine(
    words("Ledger, Clip, Route, Note, Frame, Query, Stack, Chart, Form, Mail"),
    words("Lark, Nest, Forge, Pilot, Kite, Mint, Harbor, Wren, Deck"),
    "{}{}",
)
CHANGING = (
    Topic(
        key="city",
        memory_type="fact",
        values=CITIES,
        says=lines(
            """
            I live in {v}.
            I'm based in {v}.
            My home is in {v}, near the old market.
            My flat is in {v}, on the third floor.
            For context, home for me is {v}.
            """
        ),
        semantic="User lives in {v}.",
        changes=lines(
            """
            I moved to {v} {when}.
            I moved from {old} to {v} {when}, boxes are still everywhere.
            I don't live in {old} any more, {when} I moved into a flat in {v}.
            Big news, I left {old} and live in {v} now.
            """
        ),
        changed="User moved to {v} and now lives there.",
        asks=pairs(
            """
            What could I do outdoors on a free Sunday?
            > Try a riverside walk early, then a long late breakfast.
            How do I find a reliable plumber around here?
            > Ask two neighbours and compare written quotes first.
            Any tips for meeting people after work?
            > Join one weekly class; seeing the same faces helps most.
            What should I check before renting a bike for the season?
            > Check the brakes, the lock and what the insurance covers.
            Could you suggest a simple plan for a rainy afternoon?
            > A small museum, then soup somewhere warm, works nicely.
            """
        ),
        tags=("home", "location"),
        question="In which city do I live now?",
        noun="my home city",
        past_question="In which city did I live before I moved to {v}?",
        count_question="How many different cities have I lived in, from what I told you?",
        probe=("Happy to help with that. Which city do you live in?", "In {v}, right by the station."),
        lookalikes=(
            Lookalike(
                key="sister-city",
                say="My sister lives in {v}.",
                semantic="User's sister lives in {v}.",
                noun="my sister's home city",
            ),
            Lookalike(
                key="best-friend-city",
                say="My best friend has a house in {v}.",
                semantic="User's best friend has a house in {v}.",
                noun="the city of my best friend's house",
            ),
        ),
    ),
    Topic(
        key="job",
        memory_type="fact",
        values=JOBS,
        says=lines(
            """
            I work as {av}.
            I'm {av} by profession.
            I earn my living as {av}.
            As {av} I am on my feet most of the day.
            """
        ),
        semantic="User works as {av}.",
        changes=lines(
            """
            I quit being {aold} and started as {av} {when}.
            I changed careers, I work as {av} now.
            I started as {av} {when}, so I'm no longer {aold}.
            """
        ),
        changed="User now works as {av}.",
        asks=pairs(
            """
            What can I do in the evening to switch off from work?
            > A short walk and no screens for an hour works well.
            How do I write a friendly out-of-office note?
            > Give the dates, one contact, and keep it to three lines.
            Which stretches help after a long shift?
            > Hip openers and a slow forward fold, two minutes each.
            How should I describe my work in a short bio?
            > One sentence on what you do, one on whom it helps.
            """
        ),
        tags=("work", "occupation"),
        question="What is my current occupation?",
        noun="my occupation",
        entity="none",
        past_question="What did I work as before I became {av}?",
        count_question="How many different occupations have I had, from what I told you?",
        probe=("Sure, that depends on the work. What do you do for a living?", "I'm {av}, full time."),
        lookalikes=(
            Lookalike(
                key="flatmate-job",
                say="My flatmate works as {av}.",
                semantic="User's flatmate works as {av}.",
                noun="my flatmate's occupation",
            ),
            Lookalike(
                key="father-job",
                say="My father was {av} until he retired.",
                semantic="User's father was {av} until he retired.",
                noun="the occupation my father retired from",
            ),
        ),
    ),
    Topic(
        key="employer",
        memory_type="fact",
        values=EMPLOYERS,
        says=lines(
            """
            I work at {v}.
            My employer is {v}.
            I'm employed by {v}, in the main office.
            Most of my week goes to my job at {v}.
            """
        ),
        semantic="User works at {v}.",
        changes=lines(
            """
            I left {old} and joined {v} {when}.
            I signed with {v}, so {old} is no longer my employer.
            I started at {v} {when} after handing in my notice at {old}.
            """
        ),
        changed="User now works at {v}.",
        asks=pairs(
            """
            How do I prepare for a yearly review?
            > List three results with numbers and one thing to learn next.
            What is a fair way to share on-call weeks?
            > Rotate weekly, swap freely, and write every swap down.
            Can you draft a short note to thank a colleague?
            > Name what they did, why it mattered, and stop there.
            How can I keep meetings under half an hour?
            > Send the question beforehand and end at the decision.
            """
        ),
        tags=("work", "employer"),
        question="Which company do I work for now?",
        noun="my employer",
        past_question="Which company did I work for before {v}?",
        count_question="How many different employers have I had, not counting internships?",
        probe=("Gladly. Which company are you with?", "{v}, in the planning team."),
        lookalikes=(
            Lookalike(
                key="internship",
                say="Years ago I was an intern at {v}.",
                semantic="User was an intern at {v} years ago.",
                noun="the company of my old internship",
            ),
            Lookalike(
                key="brother-employer",
                say="My brother works at {v}.",
                semantic="User's brother works at {v}.",
                noun="my brother's employer",
            ),
        ),
    ),
    Topic(
        key="partner",
        memory_type="fact",
        values=FIRST_NAMES,
        says=lines(
            """
            My partner {v} and I share the cooking.
            I live with my partner, {v}.
            My partner's name is {v}.
            {v} is my partner and hates surprises.
            """
        ),
        semantic="User's partner is {v}.",
        changes=lines(
            """
            {old} and I broke up, and I'm together with {v} now.
            I'm no longer with {old}; my partner is {v} now.
            After splitting up with {old} I got together with {v} {when}.
            """
        ),
        changed="User's partner is now {v}.",
        asks=pairs(
            """
            What would make a nice quiet evening for two?
            > Cook one dish together and put the phones in a drawer.
            How can two people split chores without arguing?
            > Each picks what they mind least, then swap monthly.
            Any idea for a small anniversary gift?
            > A framed photo with a handwritten line on the back.
            Which board game works well with two players?
            > Pick a cooperative one, then nobody sulks afterwards.
            """
        ),
        tags=("relationship", "partner"),
        question="Who is my partner now?",
        noun="the name of my partner",
        past_question="Who was my partner before {v}?",
        count_question="How many different partners have I told you about?",
        lookalikes=(
            Lookalike(
                key="cousin-partner",
                say="My cousin is engaged to somebody named {v} too.",
                semantic="User's cousin is engaged to somebody named {v}.",
                noun="the name of my cousin's fiance",
            ),
            Lookalike(
                key="colleague-name",
                say="A colleague of mine is also called {v}.",
                semantic="A colleague of the user is called {v}.",
                noun="the name of the colleague I mentioned",
            ),
        ),
    ),
    Topic(
        key="pet",
        memory_type="fact",
        values=PETS,
        says=lines(
            """
            I have {av}.
            At home I look after {av}.
            I share my flat with {av}.
            """
        ),
        semantic="User has {av}.",
        changes=lines(
            """
            We gave our {old} to my aunt and adopted {av} {when}.
            Our {old} lives with my parents now, my own pet is {av}.
            I no longer have the {old}, {when} I brought home {av}.
            """
        ),
        changed="User now has {av}.",
        asks=pairs(
            """
            How do I keep an animal calm during fireworks?
            > Close the curtains, play soft music, and stay near.
            What belongs in a travel kit for a pet?
            > Water, a familiar blanket, papers and a spare leash or cage cover.
            How often should a vet check be booked?
            > Once a year is usual, twice for older animals.
            How can I get fur off a sofa quickly?
            > Use a damp rubber glove and wipe in one direction.
            """
        ),
        tags=("pet", "home"),
        question="What pet do I have now?",
        noun="my pet",
        entity="last",
        past_question="What pet did I have before the {v}?",
        count_question="How many different pets of my own have I told you about?",
        probe=("Of course. What kind of animal is it?", "It's {av}, three years old."),
        lookalikes=(
            Lookalike(
                key="neighbour-pet",
                say="My neighbour has {av} as well.",
                semantic="User's neighbour has {av}.",
                noun="my neighbour's pet",
            ),
        ),
    ),
    Topic(
        key="car",
        memory_type="fact",
        values=CARS,
        says=lines(
            """
            I drive a {v}.
            My car is a {v}.
            I own a {v} and park it on the street.
            """
        ),
        semantic="User drives a {v}.",
        changes=lines(
            """
            I sold the {old} and bought a {v} {when}.
            The {old} is gone, I drive a {v} now.
            I traded in my {old} {when}, my car is a {v} now.
            """
        ),
        changed="User now drives a {v}.",
        asks=pairs(
            """
            How do I get rid of a musty smell inside?
            > Air it dry, then leave baking soda in a bowl overnight.
            What should I check before a long motorway trip?
            > Tyre pressure, oil, washer fluid and the spare wheel.
            How do I stop the windows from fogging up?
            > Turn the heat up, air conditioning on, recirculation off.
            Is it worth waxing the paint before winter?
            > Yes, one thin coat protects well against salt.
            """
        ),
        tags=("car", "transport"),
        question="What car do I drive now?",
        noun="my car",
        past_question="What car did I drive before the {v}?",
        count_question="How many different cars of my own have I told you about?",
        probe=("Happy to help. Which car is it?", "It's {av}, bought second hand."),
        lookalikes=(
            Lookalike(
                key="dad-car",
                say="My dad drives a {v}.",
                semantic="User's dad drives a {v}.",
                noun="my dad's car",
            ),
        ),
    ),
    Topic(
        key="diet",
        memory_type="fact",
        values=DIETS,
        says=lines(
            """
            I follow a {v} diet.
            I eat {v}, at home and when I'm out.
            My diet is {v}.
            """
        ),
        semantic="User follows a {v} diet.",
        changes=lines(
            """
            I stopped eating {old} and follow a {v} diet now.
            I switched from {old} to a {v} diet {when}.
            My diet is {v} now, the {old} phase is over.
            """
        ),
        changed="User now follows a {v} diet.",
        asks=pairs(
            """
            What could I cook in twenty minutes tonight?
            > A quick pan of seasonal vegetables with herbs and lemon.
            Can you think of a packed lunch that keeps well?
            > A grain-free salad jar keeps; dressing at the bottom.
            What should I bring to a shared dinner?
            > Something you can eat yourself, in a bowl people can pass.
            How do I plan meals for a week without waste?
            > Plan four dinners, leave three nights for leftovers.
            """
        ),
        tags=("diet", "food"),
        question="Which diet do I follow now?",
        noun="my diet",
        entity="none",
        past_question="Which diet did I follow before the {v} one?",
        count_question="How many different diets have I followed, from what I told you?",
        lookalikes=(
            Lookalike(
                key="roommate-diet",
                say="My roommate is on a {v} diet.",
                semantic="User's roommate is on a {v} diet.",
                noun="my roommate's diet",
            ),
            Lookalike(
                key="mother-diet",
                say="My mother eats {v} on doctor's orders.",
                semantic="User's mother eats {v} on doctor's orders.",
                noun="the diet my mother was prescribed",
            ),
        ),
    ),
    Topic(
        key="hobby",
        memory_type="fact",
        values=HOBBIES,
        says=lines(
            """
            My main hobby is {v}.
            I spend most free evenings on {v}.
            In my spare time I'm really into {v}.
            """
        ),
        semantic="User's main hobby is {v}.",
        changes=lines(
            """
            I gave up {old} and took up {v} {when}.
            I lost interest in {old}; my main hobby is {v} now.
            My free evenings go to {v} now instead of {old}.
            """
        ),
        changed="User's main hobby is now {v}.",
        asks=pairs(
            """
            How do I make time for practice every week?
            > Fix one evening and treat it like an appointment.
            What is a good way to track progress?
            > Keep a one-line log after each session.
            How can I find a local group to join?
            > Look at the notice board of the community centre.
            How much should a beginner spend on gear?
            > Borrow first, buy after the third month.
            """
        ),
        tags=("hobby", "leisure"),
        question="What is my main hobby now?",
        noun="my main hobby",
        past_question="What was my main hobby before {v}?",
        count_question="How many different main hobbies have I had, from what I told you?",
        probe=("Good idea. What is your main hobby?", "It's {v}, most evenings."),
        lookalikes=(
            Lookalike(
                key="niece-hobby",
                say="My niece started with {v} at school.",
                semantic="User's niece started with {v} at school.",
                noun="my niece's activity at school",
            ),
        ),
    ),
    Topic(
        key="phone",
        memory_type="fact",
        values=PHONES,
        says=lines(
            """
            My phone is {av}.
            I use {av} as my phone.
            I carry {av}, it's my only phone.
            """
        ),
        semantic="User's phone is {av}.",
        changes=lines(
            """
            I replaced my {old} with {av} {when}.
            My {old} broke, so my phone is {av} now.
            I bought {av} {when}, my {old} went to recycling.
            """
        ),
        changed="User's phone is now {av}.",
        asks=pairs(
            """
            How do I make the battery last through a day?
            > Lower the brightness and turn off background refresh.
            What is the easiest way to free up storage?
            > Move videos to a drive and empty the bin folder.
            How can I scan a paper form without a scanner?
            > Use the camera's document mode in even light.
            How do I silence it at night but keep alarms?
            > Schedule do-not-disturb and allow alarms in it.
            """
        ),
        tags=("phone", "device"),
        question="Which phone do I use now?",
        noun="my phone",
        past_question="Which phone did I use before the {v}?",
        count_question="How many different phones have I used, from what I told you?",
        probe=("Sure. Which phone do you have?", "It's {av}, the basic version."),
        lookalikes=(
            Lookalike(
                key="mother-phone",
                say="My mother also uses {av}.",
                semantic="User's mother uses {av}.",
                noun="my mother's phone",
            ),
        ),
    ),
    Topic(
        key="gym-schedule",
        memory_type="fact",
        values=GYM_TIMES,
        says=lines(
            """
            I go to the gym on {v}.
            My gym sessions are on {v}.
            I train on {v}, always at the same gym.
            """
        ),
        semantic="User goes to the gym on {v}.",
        changes=lines(
            """
            I changed my gym days, I go on {v} now.
            My gym schedule moved from {old} to {v} {when}.
            I can't train on {old} any more, so I go to the gym on {v} now.
            """
        ),
        changed="User now goes to the gym on {v}.",
        asks=pairs(
            """
            What should I eat before training?
            > Something light with carbs about ninety minutes before.
            How long should a warm-up take?
            > Eight to ten minutes, ending with the first lift unloaded.
            How do I avoid sore shoulders the day after?
            > Lower the weight and slow down the last third.
            Is it better to do cardio first or last?
            > Last, if strength is what you want to build.
            """
        ),
        tags=("gym", "schedule"),
        question="On which days and at what time do I go to the gym now?",
        noun="my gym schedule",
        entity="none",
        past_question="When did I go to the gym before I switched to {v}?",
        count_question="How many different gym schedules have I had, from what I told you?",
        lookalikes=(
            Lookalike(
                key="brother-gym",
                say="My brother goes to the gym on {v}.",
                semantic="User's brother goes to the gym on {v}.",
                noun="my brother's gym schedule",
            ),
        ),
    ),
)
STABLE = (
    Topic(
        key="birthday",
        memory_type="fact",
        values=combine(
            tuple(str(day) for day in range(1, 29)),
            words("March, June, August, October, April, May, November"),
        ),
        says=lines(
            """
            My birthday is on {v}.
            I was born on {v}, so parties are easy to plan.
            I celebrate my birthday on {v}.
            """
        ),
        semantic="User's birthday is on {v}.",
        asks=pairs(
            """
            What is a relaxed way to celebrate with eight people?
            > A picnic with a shared dessert table keeps it easy.
            How early should invitations go out?
            > Three weeks ahead is enough for a small party.
            """
        ),
        tags=("birthday",),
        question="When is my birthday?",
        noun="my birthday",
        entity="none",
    ),
    Topic(
        key="hometown",
        memory_type="fact",
        values=CITIES,
        says=lines(
            """
            I grew up in {v}.
            I spent my childhood in {v}.
            I was born and raised in {v}.
            """
        ),
        semantic="User grew up in {v}.",
        asks=pairs(
            """
            How do I start writing down family stories?
            > Record one short memory a week and date it.
            What is a nice way to label old photos?
            > Soft pencil on the back: names, place, year.
            """
        ),
        tags=("hometown", "childhood"),
        question="Where did I grow up?",
        noun="the place where I grew up",
    ),
    Topic(
        key="degree",
        memory_type="fact",
        values=words(
            """geology, economics, music history, chemistry, law, linguistics, marine biology,
            philosophy, statistics, art history, agronomy, anthropology, mechanical engineering"""
        ),
        says=lines(
            """
            I studied {v} at university.
            My degree is in {v}.
            I have a degree in {v}, a bit rusty by now.
            """
        ),
        semantic="User has a degree in {v}.",
        asks=pairs(
            """
            How can I refresh what I learned back then?
            > Reread one old textbook chapter a week with notes.
            Is an evening course worth it at my age?
            > If it is one you would attend for fun, yes.
            """
        ),
        tags=("education",),
        question="What is my degree in?",
        noun="the subject of my degree",
    ),
    Topic(
        key="daughter",
        memory_type="fact",
        values=FIRST_NAMES,
        says=lines(
            """
            My daughter {v} is six.
            My six-year-old daughter is called {v}.
            My daughter, {v}, just turned six.
            """
        ),
        semantic="User's daughter is called {v} and is six years old.",
        asks=pairs(
            """
            What is a good first chapter book for reading aloud?
            > Short chapters with pictures; let the child pick.
            How do I make tidying up less of a fight?
            > Race a two-minute timer and stop when it rings.
            """
        ),
        tags=("family", "child"),
        question="What is my daughter's name?",
        noun="my daughter's name",
    ),
    Topic(
        key="native-language",
        memory_type="fact",
        values=words(
            """Hungarian, Swahili, Vietnamese, Portuguese, Turkish, Finnish, Bengali, Catalan, Arabic,
            Polish, Tamil, Greek, Romanian, Korean"""
        ),
        says=lines(
            """
            My native language is {v}.
            I grew up speaking {v}.
            At home we spoke {v}, it's my mother tongue.
            """
        ),
        semantic="User's native language is {v}.",
        asks=pairs(
            """
            How do I sound less stiff in English emails?
            > Use short sentences and drop the formal openers.
            How do I practise small talk?
            > Prepare three open questions and listen for follow-ups.
            """
        ),
        tags=("language",),
        question="What is my native language?",
        noun="my native language",
    ),
    Topic(
        key="shoe-size",
        memory_type="fact",
        values=words("37, 38, 39, 40, 41, 42, 43, 44, 45, 46"),
        says=lines(
            """
            My shoe size is {v}.
            I wear size {v} in shoes.
            In European sizes my shoe size is {v}.
            """
        ),
        semantic="User's shoe size is {v}.",
        asks=pairs(
            """
            What matters most when buying hiking boots online?
            > A thumb's width at the toe and a free return.
            How do I break in stiff leather shoes?
            > Wear them an hour a day with thick socks.
            """
        ),
        tags=("clothing", "shoes"),
        question="What is my shoe size?",
        noun="my shoe size",
        entity="none",
    ),
)
PREFERENCES = (
    Topic(
        key="pref-seat",
        memory_type="preference",
        values=words("window seat, aisle seat, front-row seat, seat near the exit"),
        says=lines(
            """
            On planes I prefer a {v}.
            I always want a {v} when I fly.
            Given the choice, I fly in a {v}.
            """
        ),
        semantic="User prefers a {v} on planes.",
        changes=lines(
            """
            I used to want a {old}, but I prefer a {v} on planes now.
            Forget the {old}, these days I prefer a {v} when I fly.
            """
        ),
        asks=pairs(
            """
            What helps against dry eyes on long flights?
            > Drops before boarding, and glasses instead of lenses.
            What should go into a carry-on for ten hours?
            > Layers, water bottle, charger and something on paper.
            """
        ),
        tags=("travel", "seat"),
        question="Which kind of seat do I like on planes?",
        noun="the plane seat I prefer",
        entity="none",
    ),
    Topic(
        key="pref-coffee",
        memory_type="preference",
        values=words(
            """oat-milk flat white, black filter coffee, double espresso, iced latte, decaf cappuccino,
            Turkish coffee, cold brew"""
        ),
        says=lines(
            """
            My favourite coffee is {av}.
            I prefer {av} over any other coffee.
            When it comes to coffee I always order {av}.
            """
        ),
        semantic="User's favourite coffee is {av}.",
        changes=lines(
            """
            I'm over the {old}, my favourite coffee is {av} now.
            I used to order {aold}, now I prefer {av}.
            """
        ),
        asks=pairs(
            """
            How do I clean a coffee machine properly?
            > Run citric acid through it, then two tanks of water.
            How should beans be stored?
            > Airtight, dark and at room temperature, never in the fridge.
            """
        ),
        tags=("coffee", "drink"),
        question="Which coffee do I like best?",
        noun="my favourite coffee",
        entity="none",
    ),
    Topic(
        key="pref-answers",
        memory_type="preference",
        values=words(
            """bullet points, short paragraphs, numbered steps, a single summary sentence, tables with
            headings"""
        ),
        says=lines(
            """
            I prefer answers as {v}.
            Please give me {v} when you explain things, I read those best.
            I like your answers in the form of {v}.
            """
        ),
        semantic="User prefers answers as {v}.",
        changes=lines(
            """
            I changed my mind about {old}, I prefer answers as {v} now.
            Instead of {old}, I like answers as {v} from now on.
            """
        ),
        asks=pairs(
            """
            How does a heat pump work?
            > It moves heat from outside air into the house using a compressor.
            What does compound interest mean?
            > Interest is paid on earlier interest, so growth speeds up.
            """
        ),
        tags=("answer style", "format"),
        question="In which form do I like answers?",
        noun="the form of answers I prefer",
        entity="none",
    ),
    Topic(
        key="pref-focus-music",
        memory_type="preference",
        values=words(
            """lo-fi beats, piano jazz, film scores, ambient drones, baroque concertos, rain sounds,
            bossa nova"""
        ),
        says=lines(
            """
            I like {v} while I concentrate.
            For focused work I put on {v}.
            Nothing helps me focus like {v}.
            """
        ),
        semantic="User likes {v} for focused work.",
        changes=lines(
            """
            I'm tired of {old}, I like {v} for concentrating now.
            For focused work I put on {v} now, no longer {old}.
            """
        ),
        asks=pairs(
            """
            How long should a focus block be?
            > Fifty minutes and a real break suits most people.
            How do I stop checking messages all the time?
            > Close the client and set two fixed times for it.
            """
        ),
        tags=("music", "focus"),
        question="What do I like to listen to when I need to focus?",
        noun="the music I like for focused work",
        entity="none",
    ),
    Topic(
        key="pref-cuisine",
        memory_type="preference",
        values=words(
            """Thai food, Ethiopian food, Lebanese food, Japanese food, Mexican food, Georgian food,
            Italian food, Peruvian food"""
        ),
        says=lines(
            """
            {v} is what I like best.
            I could eat {v} every day, it's my favourite.
            When we eat out I always vote for {v}.
            """
        ),
        semantic="User's favourite cuisine is {v}.",
        changes=lines(
            """
            I've had enough of {old}, my favourite is {v} now.
            These days I like {v} better than {old}.
            """
        ),
        asks=pairs(
            """
            How far ahead should a table for six be booked?
            > Two weeks for a weekend, three days otherwise.
            How do I choose a restaurant for a mixed group?
            > Pick one with shared plates and a clear menu.
            """
        ),
        tags=("food", "cuisine"),
        question="Which cuisine do I like best?",
        noun="my favourite cuisine",
        entity="none",
    ),
    Topic(
        key="pref-meeting-time",
        memory_type="preference",
        values=words(
            """before ten in the morning, right after lunch, late in the afternoon, around eleven"""
        ),
        says=lines(
            """
            I prefer meetings {v}.
            Meetings suit me best {v}.
            If I can choose, I have meetings {v}.
            """
        ),
        semantic="User prefers meetings {v}.",
        changes=lines(
            """
            Meetings {old} no longer suit me, I prefer them {v}.
            I used to like meetings {old}, now {v} is better for me.
            """
        ),
        asks=pairs(
            """
            How do I decline an invitation politely?
            > Thank them, give one reason, offer another slot.
            What makes a good agenda?
            > Three questions to answer, each with a name beside it.
            """
        ),
        tags=("meetings", "schedule"),
        question="At what time of day do I like meetings?",
        noun="the time I prefer for meetings",
        entity="none",
    ),
    Topic(
        key="pref-books",
        memory_type="preference",
        values=words(
            """detective novels, travel diaries, science fiction, short stories, biographies,
            historical novels, essays on nature"""
        ),
        says=lines(
            """
            I like reading {v} most.
            For reading, I prefer {v} to anything else.
            My shelves are full of {v}, I love them.
            """
        ),
        semantic="User prefers reading {v}.",
        changes=lines(
            """
            I've read too many {old}, now I prefer {v}.
            My taste moved from {old} to {v}.
            """
        ),
        asks=pairs(
            """
            How can I read more in the evenings?
            > Leave the book on the pillow and the phone in the hall.
            How do I start a book club?
            > Four people, one date a month, short books first.
            """
        ),
        tags=("books", "reading"),
        question="What do I like to read most?",
        noun="what I like to read",
        entity="none",
    ),
    Topic(
        key="pref-hotel",
        memory_type="preference",
        values=words(
            """quiet rooms on a high floor, small family-run hotels, self-catering flats, rooms with a
            bathtub, hostels with a shared kitchen"""
        ),
        says=lines(
            """
            When I travel I prefer {v}.
            For trips I always look for {v}.
            I sleep best in {v}, so that's what I book.
            """
        ),
        semantic="User prefers {v} when travelling.",
        changes=lines(
            """
            I've gone off {old}, for trips I prefer {v} now.
            On my travels I want {v} now rather than {old}.
            """
        ),
        asks=pairs(
            """
            How do I compare offers fairly?
            > Add breakfast, tax and transfers before comparing.
            When is the cheapest time to book?
            > Often four to six weeks ahead, midweek.
            """
        ),
        tags=("travel", "lodging"),
        question="What kind of place do I like to stay in when travelling?",
        noun="the lodging I prefer",
        entity="none",
    ),
)
CONSTRAINTS = (
    Topic(
        key="allergy",
        memory_type="constraint",
        values=words(
            """peanuts, penicillin, shellfish, latex, hazelnuts, sesame, bee stings, ibuprofen, kiwi,
            soy"""
        ),
        says=lines(
            """
            I'm allergic to {v}.
            I have an allergy to {v}.
            Please keep in mind that I'm allergic to {v}.
            """
        ),
        semantic="User is allergic to {v}.",
        asks=pairs(
            """
            What should I ask in a restaurant?
            > Ask what it is cooked with and whether the pans are shared.
            What belongs in a small emergency kit?
            > Your medication, a card with instructions, and a contact.
            """
        ),
        tags=("allergy", "health"),
        question="What am I allergic to?",
        noun="my allergy",
        probe=("I can suggest some. Is there anything you are allergic to?", "Yes, {v}, quite badly."),
        lookalikes=(
            Lookalike(
                key="nephew-allergy",
                say="My nephew is allergic to {v}.",
                semantic="User's nephew is allergic to {v}.",
                noun="my nephew's allergy",
            ),
        ),
    ),
    Topic(
        key="limit-budget",
        memory_type="constraint",
        values=words("300 euros, 450 euros, 600 euros, 800 euros, 950 euros, 1200 euros"),
        says=lines(
            """
            I can't spend more than {v} on my holiday.
            My holiday budget is capped at {v}.
            For the holiday I must stay under {v}.
            """
        ),
        semantic="User cannot spend more than {v} on the holiday.",
        asks=pairs(
            """
            How do I keep food cheap on a trip?
            > Breakfast from a supermarket, one warm meal at noon.
            Is travelling by night bus worth it?
            > It saves a night's lodging, bring a neck pillow.
            """
        ),
        tags=("budget", "holiday"),
        question="What is the most I can spend on my holiday?",
        noun="my holiday budget",
        entity="none",
    ),
    Topic(
        key="limit-calls",
        memory_type="constraint",
        values=words("""on Mondays, on Fridays, on Wednesday afternoons, at weekends, on public holidays"""),
        says=lines(
            """
            I can't take calls {v}.
            Calls {v} are impossible for me.
            Please never plan a call for me {v}.
            """
        ),
        semantic="User cannot take calls {v}.",
        asks=pairs(
            """
            How do I propose three slots politely?
            > List them in their time zone and ask for one reply.
            How can I word a calendar note about this?
            > State the days plainly, no apology needed.
            """
        ),
        tags=("calls", "schedule"),
        question="On which days can I not take calls?",
        noun="the days on which I can't take calls",
        entity="none",
    ),
    Topic(
        key="limit-knee",
        memory_type="constraint",
        values=words("run, do squats, jump, carry heavy loads, kneel for long, ski"),
        says=lines(
            """
            Because of my knee I must not {v}.
            My doctor says I can't {v} because of my knee.
            My knee is injured, so I'm not allowed to {v}.
            """
        ),
        semantic="User must not {v} because of a knee injury.",
        asks=pairs(
            """
            What keeps me fit without strain?
            > Swimming and an upper-body circuit, three times a week.
            How do I explain that to a trainer?
            > Say what is off limits first, then what you want.
            """
        ),
        tags=("health", "knee"),
        question="What must I not do because of my knee?",
        noun="what my knee forbids",
        entity="none",
    ),
    Topic(
        key="limit-caffeine",
        memory_type="constraint",
        values=words("after noon, after 2 pm, after 4 pm, on weekdays, in the evening"),
        says=lines(
            """
            I can't have caffeine {v}.
            No caffeine for me {v}, doctor's orders.
            I'm not supposed to have caffeine {v}.
            """
        ),
        semantic="User must not have caffeine {v}.",
        asks=pairs(
            """
            What can I drink instead when I'm tired?
            > Cold water, then rooibos or a fruit infusion.
            What helps against the afternoon slump?
            > Ten minutes of daylight and a short walk.
            """
        ),
        tags=("health", "caffeine"),
        question="When must I not have caffeine?",
        noun="when I must not have caffeine",
        entity="none",
    ),
)
EVENT_LABELS = words(
    """dentist appointment, flight to {city}, dinner with {name}, job interview at {employer}, eye
    exam, concert with {name}, house viewing with {name}, train trip to {city}, driving test, museum
    visit with {name}, piano lesson with {name}, night out with {name}, open day at {employer}, city
    break in {city}, blood test, farewell party for {name}, reunion in {city}, choir rehearsal"""
)
EVENT_SAYS = lines(
    """
    I have {alabel} {when}.
    Please remember that my {label} is {when}.
    My {label} is {when} and I'm a bit nervous.
    There's {alabel} in my calendar {when}.
    """
)
EVENT_PAST_SAYS = lines(
    """
    I had {alabel} {when}.
    My {label} was {when}, and it went fine.
    """
)
EVENT_MOVED_SAYS = lines(
    """
    My {label} was moved to {date}.
    They rescheduled my {label}, it is on {date} now.
    Change of plan, my {label} is on {date} instead.
    """
)
EVENT_ASKS = pairs(
    """
    What should I prepare the evening before?
    > Lay out clothes, papers and the route, then sleep early.
    How do I set a reminder that I won't ignore?
    > Two alerts, one the day before and one two hours ahead.
    How early should I leave to be safe?
    > Double the travel time and bring something to read.
    Any advice to stay calm that day?
    > Eat properly, arrive early, and breathe out slowly.
    What is easy to forget in such cases?
    > Usually the confirmation number and an ID.
    """
)
EVENT_PAST_ASKS = pairs(
    """
    How do I remember such days better later on?
    > Write three lines the same evening, with one detail you saw.
    How long should I wait before I plan something like it again?
    > Give it two weeks, then look at your calendar calmly.
    What is a good way to file the papers from such a day?
    > One folder per year, newest on top.
    """
)
DEADLINES = words(
    """tax return, grant application, library book, insurance claim, visa form, photo contest entry"""
)
DEADLINE_ASKS = pairs(
    """
    How do I keep myself from doing it at the last minute?
    > Put a first small step into the calendar for tomorrow.
    How do I make sure that nothing is missing?
    > Make a list of the parts and tick them off twice.
    What if the office is closed on that day?
    > Hand it in two days earlier, and keep the receipt.
    """
)
DEADLINE_SAYS = lines(
    """
    My {label} is due {when}.
    I have to hand in my {label} {when} at the latest.
    """
)
PROCEDURES = pairs(
    """
    publishing the newsletter
    > run the link checker, send a test copy to {name}, then schedule it for {hour}
    closing the shop
    > count the till, mail the total to {name}, then set the alarm at {hour}
    backing up photos
    > copy the card twice, compare the file counts with {name}, then format the card
    paying invoices
    > check the order number, get a yes from {name}, then pay in one batch at {hour}
    baking bread
    > mix at {hour}, fold three times, then leave the dough overnight
    starting the greenhouse pump
    > open the valve, wait two minutes, then switch on at {hour}
    releasing the website
    > freeze edits at {hour}, run the smoke test, then tell {name}
    packing for work trips
    > charge everything, print the tickets, then leave a key with {name}
    cleaning the aquarium
    > unplug the heater, change a third of the water, then feed at {hour}
    onboarding volunteers
    > send the handbook, pair them with {name}, then call them after a week
    """
)
PROCEDURE_SAYS = lines(
    """
    When I'm {task}, I always {v}.
    My routine for {task} is fixed: {v}.
    For {task} I follow the same steps: {v}.
    """
)
PROCEDURE_ASKS = pairs(
    """
    Is there a step that I'm missing?
    > It looks complete; maybe write down who did it and when.
    How can I turn that into a checklist?
    > One line per step with a box, pinned where it happens.
    How could I hand this over to someone?
    > Do it together once, then swap roles the second time.
    """
)
FAILURES = pairs(
    """
    photo backup
    > the laptop lid is closed
    home router
    > more than {number} devices are online
    printer
    > a page has a full-width image
    invoice import
    > a customer name has an accent
    dishwasher
    > the half-load program runs after {hour}
    video export
    > the clip is longer than {number} minutes
    calendar sync
    > an entry repeats every {number} days
    bread machine
    > the flour is older than {number} weeks
    heating timer
    > the clock changes in spring
    label printer
    > the roll has fewer than {number} labels left
    spreadsheet macro
    > a sheet has more than {number} hidden rows
    door sensor
    > the outside temperature drops below minus {number}
    """
)
FAILURE_SAYS = lines(
    """
    My {thing} fails whenever {v}.
    I noticed that my {thing} stops working whenever {v}.
    It happened again: my {thing} breaks down whenever {v}.
    """
)
FAILURE_ASKS = pairs(
    """
    What should I try first?
    > Reproduce it once on purpose and note the exact message.
    How do I work around it for now?
    > Avoid that case and run it by hand until it is fixed.
    How do I report this to support?
    > Give the steps, the version, and what you expected.
    """
)
TOOLS = pairs(
    """
    export tables
    > can export to CSV but not to Excel
    handle big files
    > can only open files under {number} MB
    work offline
    > can work offline for {number} days before it needs a login
    merge two projects
    > can merge two projects when both are closed
    undo a bulk edit
    > can undo the last {number} bulk edits
    share a folder
    > can share a folder with at most {number} guests
    read scanned pages
    > can read scanned pages in English and German only
    run on a schedule
    > can run jobs on a schedule but not more than {number} times a day
    convert units
    > can convert units only in the desktop version
    restore old versions
    > can restore versions from the past {number} days
    """
)
TOOL_SAYS = lines(
    """
    I found out that {tool} {v}.
    For the record, {tool} {v}.
    I tested it today: {tool} {v}.
    """
)
TOOL_USER_ASKS = pairs(
    """
    How would you plan around that?
    > Do that part first and keep a second tool at hand.
    Is that common for such tools?
    > Fairly common; the paid tiers often differ slightly.
    """
)
TOOL_QUESTIONS = lines(
    """
    Can you look up for me whether {tool} can {task}?
    What does the manual of {tool} say, can it {task}?
    """
)
TOOL_ANSWERS = lines(
    """
    According to its manual, {tool} {v}.
    Yes, within limits: {tool} {v}.
    """
)
HOURS = words("7 am, 8 am, 9 am, 10 am, 5 pm, 6 pm, 8 pm, 9 pm")
NUMBERS = words("3, 5, 6, 8, 12, 15, 20, 25, 40, 60")
OPENERS = lines(
    """
    Hi there.
    Hello again.
    One more thing.
    Quick question.
    Good morning.
    A small thing.
    """
)
JOINERS = lines(
    """
    Something else, too.
    And one unrelated thing.
    One more note on the side.
    While I am at it, another thing.
    """
)
ACKNOWLEDGEMENTS = lines(
    """
    Thanks for telling me.
    Understood.
    Good to know.
    All right.
    Got it.
    """
)
THANKS = pairs(
    """
    Thanks, that is really all that I needed for today.
    > You're welcome, come back any time.
    Perfect, that sounds doable, I'll try it this way first.
    > Great, tell me how it goes.
    Okay, that makes sense to me, thank you for the quick help.
    > Glad it helped.
    Nice, short and clear, exactly what I was hoping for.
    > Happy to help.
    """
)
ADVICE = pairs(
    """
    How do you get candle wax out of a tablecloth?
    > Freeze it, scrape it, then iron it through paper.
    And what if a coloured stain stays behind afterwards?
    > Dab it with alcohol and wash it warm.

    What is the difference between a fixed and a variable mortgage rate?
    > A fixed rate stays, a variable one follows the market.
    Which one is usually considered safer in uncertain times?
    > The fixed one, since payments can be planned.

    How long can cooked rice be kept in the fridge?
    > About a day, two at most, cooled quickly.
    Is reheating it in a microwave generally fine?
    > Yes, once, until it steams all the way through.

    What is a good way to learn the names of stars?
    > Start with one bright triangle per season.
    Are paper star charts still useful compared with apps?
    > Yes, they keep your eyes used to the dark.

    How do people usually prepare for a first half marathon?
    > Three easy runs a week and one longer one.
    How much rest is recommended right before the race?
    > Two quiet days with short walks.

    Why do leaves turn yellow in autumn?
    > The green fades and shows the pigments beneath.
    Does the weather decide how bright they get?
    > Yes, cool dry nights make stronger colours.

    What should one look for in a used bicycle?
    > A straight frame, true wheels and smooth gears.
    Which parts are the most expensive to replace on one?
    > The drivetrain and the wheels.

    How does a pressure cooker save time?
    > Higher pressure raises the boiling point of water.
    Are there foods that should never go into it?
    > Anything that foams a lot, like oats.

    What makes a password policy useful rather than annoying?
    > Length over complexity, and no forced expiry.
    Does a second factor replace a long password?
    > No, it adds to it.

    How do you fold a fitted sheet neatly?
    > Tuck the corners into each other, then fold in thirds.
    Is there a trick for storing complete sets together?
    > Put each set into its own pillowcase.

    What is the best way to thaw frozen fish?
    > Overnight in the fridge on a plate.
    And when there is only one hour left before dinner?
    > In a sealed bag under cold water.

    How are plural nouns formed in Esperanto?
    > Add the letter j to the noun.
    And how does the accusative ending combine with that?
    > It comes last, so the ending is jn.

    What does the term inflation basket mean?
    > A fixed list of goods whose prices are tracked.
    Who decides which goods belong in such a list?
    > The statistics office, from household surveys.

    How can noise from an upstairs flat be reduced?
    > Soft furnishings and a talk with the neighbours help first.
    Do acoustic panels on a ceiling make a difference?
    > A little, mostly against echo.

    What is a sensible order for cleaning a kitchen?
    > From top to bottom, and dry before wet.
    How often should an extractor filter be washed, roughly?
    > Every two or three months.

    How do tides work in simple words?
    > The moon pulls the oceans into two bulges.
    Why are there usually two high tides per day?
    > The earth turns through both bulges.

    What are good rules for naming files?
    > Date first, no spaces, one clear word.
    Should version numbers be part of a name as well?
    > Only where no version control exists.

    Which knots should every camper know?
    > The bowline, the clove hitch and the taut-line hitch.
    Which of those is the easiest to untie under load?
    > The taut-line hitch slides free.

    How is a haiku built?
    > Three lines of five, seven and five syllables.
    Do modern poets still count the syllables strictly?
    > Many do not, they keep the turn instead.

    What is the safest way to carry a ladder alone?
    > On the shoulder, front end raised slightly.
    And what angle should it have against a wall?
    > About four up to one out.

    How do noise-cancelling headphones work?
    > They play the inverse of the outside sound.
    Why do voices still come through so clearly?
    > Quickly changing sounds are harder to invert.

    What is a fair tip in a country one doesn't know?
    > Look up the custom; ten percent rarely offends.
    Is it better in cash or on a card?
    > Cash reaches the staff more reliably.

    How can a cover letter be kept short?
    > One paragraph on them, one on the match.
    Should salary expectations be mentioned in it at all?
    > Only where the advert asks.

    Why does bread go stale faster in the fridge?
    > Starch hardens quickest just above freezing.
    Is freezing it in slices a better idea then?
    > Yes, and toast straight from frozen.

    What is the point of a control group?
    > It shows what would happen without the treatment.
    Can a study without one still be useful?
    > Yes, to form ideas, not to prove them.

    How do you choose a ripe melon?
    > It feels heavy and smells sweet at the stem.
    Does the sound when knocking on it say anything?
    > A dull, deep sound is a good sign.

    What helps houseplants survive a dark winter?
    > Less water, no fertiliser, closer to the window.
    Are cheap plant lamps worth buying for that?
    > Yes, twelve hours a day on a timer.

    How is a metre defined today?
    > By the distance light travels in a tiny part of a second.
    What was the definition before that, historically?
    > A platinum bar, and earlier a part of a meridian.

    What is a polite way to end a long phone call?
    > Sum up in one line and name the next step.
    And if the other person simply keeps on talking?
    > Say that you have to go, kindly and once.

    How can one compare health insurance plans?
    > Compare the worst case, not the monthly price.
    What does a deductible change about that picture?
    > It moves small costs to the insured.

    What causes static electricity on clothes?
    > Rubbing dry fabrics moves charge between them.
    Which household trick gets rid of it quickest?
    > A metal hanger drawn along the fabric.

    How are solar panels cleaned safely?
    > From the ground, with water and a soft brush.
    Does dust really cost that much output per year?
    > A few percent in most places.
    """
)
ADVICE_OPENERS = lines(
    """
    I was wondering in general:
    Just out of curiosity:
    A general question for a quiz night:
    Maybe you can explain this to me:
    This came up in a conversation today:
    """
)
SECRET_SAYS = {
    "api_key": (
        (
            "The upload still answers 403 although I send this key: {s}",
            "Check the scope of the key, and replace it now that it was pasted.",
        ),
        (
            "Here is my API key {s} so you can see the format, why is it refused?",
            "Check for a trailing space, and rotate it since it was shared.",
        ),
    ),
    "password": (
        (
            "I can't log in to the router, my password is {s} and it says invalid.",
            "Check the keyboard layout, and change it after sharing it here.",
        ),
        (
            "The shop account won't open with the password {s}, what else can I try?",
            "Use the reset link, then pick a new one.",
        ),
    ),
    "card_number": (
        (
            "The checkout declines my card {s}, it worked yesterday.",
            "Ask the bank about a limit, and do not paste card numbers here.",
        ),
        (
            "Can you see what is wrong with this card number: {s}?",
            "I can't check cards; the bank's hotline can.",
        ),
    ),
    "bearer_token": (
        (
            "My request has the header Authorization: Bearer {s} and still returns 401.",
            "The token has probably expired; request a new one.",
        ),
    ),
    "private_key": (
        (
            "The server refuses this key, is the format wrong?\n{s}",
            "The format looks usual, but replace the key, it is no longer private.",
        ),
    ),
}
