"""What people are to somebody: words that tell who "Lena" is in "my sister Lena"."""

RELATIONS = frozenset(
    """mother father mum mom dad parents brother sister siblings son daughter child children kids baby wife
    husband spouse partner boyfriend girlfriend fiance fiancee ex ex-wife ex-husband uncle aunt cousin nephew
    niece grandmother grandfather grandma grandpa gran grandparents grandson granddaughter grandchild
    grandchildren mother-in-law father-in-law brother-in-law sister-in-law parents-in-law stepson stepdaughter
    stepfather stepmother friend friends flatmate roommate neighbour neighbor colleague boss manager landlord
    landlady tenant twin godson goddaughter classmate teacher trainer employee apprentice assistant
    therapist doctor dentist babysitter cleaner family in-laws client customer""".split()  # noqa: SIM905
)
