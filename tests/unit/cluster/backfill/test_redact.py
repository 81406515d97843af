"""What is redacted, what is left alone, and what holds for every string.

Secrets are put together from pieces, so that scanners of this repository have nothing to report.
"""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.backfill.redact import KINDS, Redacted, compiled, redact, redact_turns

WORD = "hunter" + "2"
LONG = "aB3d" * 10
JWT = ".".join(("eyJ" + "hbGciOiJIUzI1NiJ9", "eyJ" + "zdWIiOiIxMjM0In0", "abc_DEF-123"))
VISA = "4111" + " 1111" * 3
BEGIN, END = (f"-----{edge} RSA " + "PRIVATE KEY-----" for edge in ("BEGIN", "END"))
BODY = "MIIEow" + "A1b+" * 14 + "\n" + "Zz9/" * 16 + "\n" + "Ab3="

IN_PROSE = [
    ("my password is {}", WORD + "!"),
    ("My password is {}.", "sword" + "fish"),
    ("my Netflix password is {} and the user is bob", "Sun" + "shine"),
    ("pw: {}", "sword" + "fish"),
    ("the wifi password's {}.", WORD),
    ("the wifi password’s {}, ok?", WORD),
    ("wifi password at the cabin is {}", "PineTree" + "99"),
    ("password (guest wifi): {}", WORD),
    ("passcode {}", "48" + "21"),
    ("My PIN is {}, please remember", "48" + "21"),
    ("I changed my password to {} yesterday", "Tr0ub4" + "dor&3"),
    ("username bob password {}", WORD),
    ("it was my password, {}", WORD),
    ("user: bob pass: {}", WORD),
    ("{} is my password", WORD),
    ("use {} as my wifi password", WORD),
    ("the password is “{}”", "open " + "sesame"),
    ("**Password:** `{}`", "s3cr3t" + "Pass"),
    ("Password:\n{}", WORD),
    ("| Password | {} |", WORD),
    ("password is {}", "correct-" + "horse-battery"),
    ("DB_PASSWORD={} ./run", WORD),
    ('{{"user": "bob", "password": "{}", "x": 1}}', WORD),
    ("password_old = '{}';", "hun ter" + "22"),
]

KEYS = [
    "AKIA" + "ABCDEFGH12345678",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 9,
    "glpat-" + "a1B2" * 5,
    "xoxb-" + "123456789012-123456789012-abcdefABCDEF",
    "sk_live_" + "a1B2" * 12,
    "sk-proj-" + LONG,
    "sk-ant-api03-" + LONG,
    "AIza" + "a1B2-" * 7,
    "hf_" + LONG,
    "SK" + "a1b2" * 8,
]

ORDINARY = [
    "I forgot my password",
    "I tried to reset my password 3 times in 2023",
    "Use a password manager such as 1Password or LastPass.",
    "password reset",
    "what is a good password?",
    "My password is wrong.",
    "The password is required and case-sensitive.",
    "A strong password: 12+ characters, or a 16-character phrase",
    "2. **Master password**: Choose a strong one\n3. **2FA**: turn it on",
    "Reset your password at https://example.com/reset?x=12",
    "Send the password to bob2@example.com",
    "the bearer of bad news, a token of my appreciation, the secret to success",
    'My secret ingredient: "love"',
    "boarding pass: Gate 12A; 3-day pass: $129; rolling pin: $12.99; pin 1024 of the board",
    "password: ********",
    'password = os.environ["X"]',
    "password = getpass.getpass()",
    "const password = req.body.password1;",
    "def login(user: str, password: str, token: str = None):",
    '<input type="password" name="password1" placeholder="Enter 8">',
    "password VARCHAR(255)",
    "api_key = " + '"YOUR_API_KEY"',
    "password: ${DB_PASSWORD}",
    "Authorization: Bearer <token>",
    "postgresql://user" + ":password@localhost/mydatabase",
    "https://example.com:8080/@bob",
]

NOT_CARDS = [
    "4111 1111 1111 1112",
    "+37 8282 246 310 005",
    "order 1234567890123452",
    "ISBN 978-0-306-40615-7",
    "lat 37.4111111111111111",
    "x/4111111111111111",
    "2023-05-13 2023-05-14 10:00",
    "35-209900-176148-1",
]


@pytest.mark.parametrize(("sentence", "secret"), IN_PROSE)
def test_password_is_replaced_and_the_words_around_it_stay(sentence, secret):
    redacted = redact(sentence.format(secret))
    assert redacted.text == sentence.format("[redacted:password]")
    assert redacted.counts == {"password": 1}


@pytest.mark.parametrize("key", KEYS)
def test_provider_token(key):
    assert redact(f"it is {key}, keep it").text == "it is [redacted:api_key], keep it"


@pytest.mark.parametrize(
    ("text", "secret", "kind"),
    [
        ("my openai api key is {}", LONG, "api_key"),
        ("https://api.example.com/?api_key={}&x=1", LONG, "api_key"),
        ("client_secret = '{}'", "aB3d!" * 4, "api_key"),
        ("Authorization: Bearer {}", "abc" * 3, "bearer_token"),
        ('curl -H "authorization: Basic {}" x', "dXNlcjpwYXNz", "bearer_token"),
        ('{{"Authorization": "Bearer {}"}}', LONG, "bearer_token"),
        ("token {} expired", JWT, "bearer_token"),
        ("postgres://bob:{}@db.example.com/x", WORD + "!", "url_password"),
        ("redis://:{}@cache:6379", WORD, "url_password"),
    ],
)
def test_keys_headers_and_urls(text, secret, kind):
    assert redact(text.format(secret)).text == text.format(f"[redacted:{kind}]")


@pytest.mark.parametrize(
    ("key", "rest"),
    [
        (f"{BEGIN}\n{BODY}\n{END}", "\nthanks a lot"),
        (f"{BEGIN}\n{BODY}\n{END}".replace("\n", "\\n"), '", "next": 1'),
        (f"{BEGIN}\n{BODY}", ""),
        (f"{BEGIN}\n{BODY}", "\nThat is my key."),
        (f"{BEGIN}\nProc-Type: 4,ENCRYPTED\n\n{BODY}", "\n\nWhat next?"),
    ],
    ids=["whole", "escaped", "truncated", "truncated, then prose", "truncated, with header"],
)
def test_private_key_goes_whole(key, rest):
    assert redact(f"Here: {key}{rest}").text == f"Here: [redacted:private_key]{rest}"


def test_two_private_keys_are_two_and_a_header_alone_is_none():
    block = f"{BEGIN}\n{BODY}\n"
    assert redact(block + block + END).counts == {"private_key": 2}
    assert redact(f"A key starts with {BEGIN} as you know").counts == {}


@pytest.mark.parametrize(
    "number",
    [VISA, VISA.replace(" ", ""), VISA.replace(" ", "-"), "3782 8224" + "63 10005", "5555" * 3 + "4444"],
)
def test_card_number(number):
    assert redact(f"card {number} exp 12/27").text == "card [redacted:card_number] exp 12/27"


def test_card_number_next_to_its_code_and_in_a_row_of_cards():
    assert redact(f"{VISA} 12 27 123").text == "[redacted:card_number] 12 27 123"
    assert redact(f"{VISA} {VISA}").counts == {"card_number": 2}


@pytest.mark.parametrize("text", ORDINARY + NOT_CARDS)
def test_left_alone(text):
    redacted = redact(text)
    assert (redacted.text, redacted.counts) == (text, {})


def test_several_secrets_in_a_turn_are_counted_by_kind():
    redacted = redact(f"pw: {WORD} and pw: {WORD}x\npay with {VISA}, log in at ftp://bob:{WORD}@host")
    assert redacted.counts == {"password": 2, "card_number": 1, "url_password": 1}
    assert WORD not in redacted.text


def test_of_two_quoted_passwords_on_a_line_both_go():
    """KeywordDetector reports the first one of a line only."""
    assert redact(f"""a_password_x="{WORD}" b_password_y="{WORD}z" """).counts == {"password": 2}


def test_a_token_longer_than_the_detector_knows_goes_whole():
    """Stripe's regex ends after 24 characters; the keys have become longer."""
    assert redact("sk_live_" + "a1B2" * 20).text == "[redacted:api_key]"


def test_hostile_web_token_payload():
    """JwtTokenDetector raises RecursionError on this one."""
    part = base64.urlsafe_b64encode(b'{"a":' + b"[" * 3000).decode().rstrip("=")
    assert redact(f"{part}.{part}.x").text == "[redacted:bearer_token]"


def test_repr_and_logs_show_no_text(caplog):
    with caplog.at_level(0):
        redacted = redact(f"only between us: my password is {WORD}")
    assert repr(redacted) == "Redacted(counts={'password': 1})"
    assert caplog.text == ""


FRAGMENTS = st.sampled_from(
    [
        *(
            "password",
            "pw",
            "passcode",
            "PIN",
            "api key",
            "secret",
            "token",
            "Authorization",
            "Bearer",
            "pass",
        ),
        *(
            " is ",
            ": ",
            "=",
            " ",
            " to ",
            "'s ",
            ", ",
            " for the ",
            "\n",
            '"',
            "'",
            "`",
            "@",
            "://",
            "-",
            ".",
            "[",
        ),
        *(
            WORD,
            "sword" + "fish",
            "48" + "21",
            LONG,
            JWT,
            VISA,
            VISA.replace(" ", ""),
            "1234",
            "4",
            " is my ",
        ),
        *(BEGIN, BODY, END, "AKIA" + "ABCDEFGH12345678", "eyJ", "sk-", "redacted:", "[redacted:"),
        *(f"[redacted:{kind}]" for kind in KINDS),
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=8), max_size=25).map("".join)


@settings(max_examples=300)
@given(TEXTS)
def test_redacting_again_changes_nothing(text):
    redacted = redact(text)
    assert redact(redacted.text).counts == {}
    assert redact(redacted.text).text == redacted.text


@settings(max_examples=300)
@given(TEXTS | st.text())
def test_any_string_gives_the_same_result_twice(text):
    redacted = redact(text)
    assert redacted == redact(text)
    assert set(redacted.counts) <= set(KINDS)
    assert (redacted.text == text) == (not redacted.counts)


# --- rules of one's own ---------------------------------------------------------------------------------

RULES = compiled({"ticket": r"TCK-\d{6}", "patient": r"(?i)patient no\. ?\d+"})


def test_what_a_rule_finds_is_replaced_by_its_kind_beside_the_secrets():
    redacted = redact("TCK-123456 is open, patient no. 77, password: hunter2!x", rules=RULES)
    assert redacted.text.startswith("[redacted:ticket] is open, [redacted:patient], password: [redacted:")
    assert redacted.counts == {"ticket": 1, "patient": 1, "password": 1}
    assert redact(redacted.text, rules=RULES) == Redacted(redacted.text, {})
    assert [one.text for one in redact_turns(["no. 1", "TCK-000000"], rules=RULES)] == [
        *("no. 1", "[redacted:ticket]")
    ]


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [
        ({"Ticket": "x"}, "kind 'Ticket'"),
        ({"password": "x"}, "kind 'password'"),
        ({"ticket": "("}, r"ticket='\(': no regular expression"),
        ({"ticket": r"\d*"}, "found in an empty text"),
        ({"ticket": r"\w+"}, "its own marker"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(rules, wrong):
    with pytest.raises(ValueError, match=wrong):
        compiled(rules)


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "1",
            "1 ",
            "4111 ",
            " ",
            "\n",
            "password ",
            "password:",
            "password: ",
            "password for x ",
            "pw='",
        ),
        *("secret='", "eyJ", "eyJa.", "sk-", "://a:", "xoxb-1-", BEGIN, BEGIN + "A", END, "A1", "[redacted:"),
        *("password [redacted:password] ", "hunter" + "2 is my password "),
    ],
)
def test_time_is_linear_in_the_length_of_a_line(unit):
    """These make the library's detectors, or a careless regex, quadratic: minutes instead of a second."""
    text = (unit * 200_000)[:200_000]
    start = time.process_time()
    redact(text)
    assert time.process_time() - start < 5
