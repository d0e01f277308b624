"""Sentences of the Countdown reasoner: every way in which each kind of step can be said.

A step is an optional opener and a core. A core is a template with named holes; a hole holds one
integer, or the word ``big`` for a value above 99. No behaviour is one word, but for the conclusion with
its brackets: openers are shared by all kinds, noun phrases by execution and reflection, and a word that
only one behaviour uses stands in half of its cores at most. The LAST core of every list is held out: it
is never used in training data, so that what is found on seen wording can be tested on unseen wording.

Source of the design: the Countdown task of Stream of Search (arXiv 2404.03683), the behaviours of
arXiv 2503.01307 and RISE (arXiv 2512.23988); the wording is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

BEHAVIOURS = ("planning", "execution", "reflection", "backtracking", "alternative", "confidence", "conclusion")

# sub-kind -> behaviour
SUBKINDS = {
    "setup": "planning", "plan_forward": "planning", "plan_backward": "planning",
    "careful": "planning", "hasty": "planning", "switching": "planning", "staying": "planning",
    "first_move": "execution", "last_pair": "execution", "last_pair_hit": "execution", "backward_move": "execution",
    "question": "reflection", "confirm": "reflection", "correct": "reflection",
    "backtrack": "backtracking",
    "to_backward": "alternative", "to_forward": "alternative",
    "sure": "confidence", "unsure": "confidence",
    "conclude": "conclusion",
}  # fmt: skip

OPENERS = ("okay ,", "so ,", "now ,", "well ,", "let me see ,", "hmm ,", "right ,", "then ,", "alright ,")
# Weights tilt the choice of opener by behaviour, with full support: an opener hints, it never decides.
OPENER_WEIGHTS = {
    "planning": (4, 2, 2, 2, 3, 1, 2, 1, 3),
    "execution": (2, 3, 3, 2, 3, 1, 1, 3, 1),
    "reflection": (1, 1, 2, 2, 3, 4, 2, 1, 1),
    "backtracking": (3, 2, 2, 3, 1, 3, 1, 2, 2),
    "alternative": (2, 2, 3, 3, 2, 3, 2, 2, 2),
    "confidence": (2, 2, 2, 3, 1, 2, 3, 1, 2),
    "conclusion": (3, 4, 2, 2, 1, 1, 3, 2, 3),
}
OPENER_RATE = 0.2

MOVES = {
    "+": ("{x} plus {y} is {r}", "adding {x} and {y} gives {r}", "the sum of {x} and {y} comes to {r}",
          "putting {x} and {y} together makes {r}", "{x} and {y} add up to {r}", "if i add {y} to {x} i get {r}",
          "together {x} and {y} are {r}"),
    "-": ("{x} minus {y} is {r}", "taking {y} away from {x} leaves {r}", "the gap between {x} and {y} is {r}",
          "{x} less {y} makes {r}", "if i subtract {y} from {x} i get {r}", "removing {y} from {x} gives {r}",
          "from {x} i take {y} and have {r}"),
    "*": ("{x} times {y} is {r}", "multiplying {x} by {y} gives {r}", "the product of {x} and {y} comes to {r}",
          "{x} lots of {y} make {r}", "if i multiply {x} and {y} i get {r}", "{y} taken {x} times makes {r}",
          "the product of {x} with {y} is {r}"),
}  # fmt: skip
KEEPS = (", so {r} and {c} remain .", ", leaving {r} and {c} .", ", which keeps {r} and {c} .",
         ", and now i hold {r} with {c} .")  # fmt: skip

PAIRS = ("from {x} and {y} come {results}", "{x} with {y} can give {results}",
         "the last pair {x} and {y} yields {results}", "with {x} and {y} i can reach {results}",
         "{x} and {y} allow {results}", "combining {x} and {y} we see {results}",
         "out of {x} and {y} i get {results}")  # fmt: skip
RESULTS = {3: "{s} , {d} and {p}", 2: "{s} and {d}"}
# The goal comes before the verdict, in the same words: what decides is whether it was among the results.
MISSES = (", and {g} is not there .", ", so {g} is missing .", ", where {g} is absent .", ", and now {g} is far away .")
HITS = (", and {g} is there .", ", so {g} is reached .", ", where {g} is present .", ", and now {g} is right here .")

# Last moves, seen backwards. "+": m + c = t; "-": m - c = t; "r": c - m = t; "*": m * c = t.
NEEDS = {
    "+": ("if {c} is added last , i need {m} from {a} and {b} .",
          "suppose the last move adds {c} , then {a} and {b} must make {m} .",
          "ending with plus {c} asks for {m} out of {a} and {b} .",
          "with plus {c} at the end , {a} and {b} should give {m} ."),
    "-": ("if {c} is subtracted last , i need {m} from {a} and {b} .",
          "suppose the last move removes {c} , then {a} and {b} must make {m} .",
          "ending with minus {c} asks for {m} out of {a} and {b} .",
          "with minus {c} at the end , {a} and {b} should give {m} ."),
    "r": ("if i subtract from {c} last , i need {m} from {a} and {b} .",
          "suppose the last move takes something from {c} , then {a} and {b} must make {m} .",
          "ending with {c} less something asks for {m} out of {a} and {b} .",
          "with {c} less something at the end , {a} and {b} should give {m} ."),
    "*": ("if {c} multiplies last , i need {m} from {a} and {b} .",
          "suppose the last move is times {c} , then {a} and {b} must make {m} .",
          "ending with times {c} asks for {m} out of {a} and {b} .",
          "with times {c} at the end , {a} and {b} should give {m} ."),
}  # fmt: skip

PHRASES = {
    "+": ("{x} plus {y}", "the sum of {x} and {y}", "adding {x} and {y}", "{x} and {y} together"),
    "-": ("{x} minus {y}", "the gap between {x} and {y}", "taking {y} from {x}", "{x} less {y}"),
    "*": ("{x} times {y}", "the product of {x} and {y}", "multiplying {x} by {y}", "{x} lots of {y}"),
    "/": ("{x} divided by {y}", "{x} over {y}", "splitting {x} by {y}", "{x} shared by {y}"),
}
QUESTIONS = ("am i sure that {fact} equals {r} ?", "wait , is {fact} really {r} ?",
             "let me check whether {fact} gives {r} .", "does {fact} actually come to {r} ?",
             "i should verify that {fact} is {r} .", "hold on , look again at {fact} , is it {r} ?",
             "to be safe i recompute {fact} , which i said is {r} .",
             "let me double check that {fact} makes {r} .", "is it correct that {fact} is {r} ?")  # fmt: skip
# A check computes again first and judges then.
CONFIRMS = (
    "{fact} is {r} , yes",
    "{fact} gives {r} , that is correct",
    "{fact} makes {r} , so it checks out",
    "{fact} comes to {r} , indeed",
    "again {fact} is {r} , confirmed",
    "i find that {fact} is {r} , as i said",
    "{fact} equals {r} , no slip",
)
CORRECTS = (
    "{fact} is {r} , no , {w} was wrong",
    "{fact} gives {r} , that is not {w}",
    "{fact} makes {r} , so {w} was a slip",
    "{fact} comes to {r} , actually not {w}",
    "again {fact} is {r} , oops , {w} is false",
    "i find that {fact} is {r} , rather than {w}",
    "{fact} equals {r} , my slip , not {w}",
)
# What a check ends with depends on what was checked: a first move, a need, a dead end, a claimed hit.
CHECK_TAILS = {
    "move": KEEPS,
    "need": (", so {a} and {b} must make {m} .", ", and i need {m} from {a} and {b} ."),
    "miss": (", so {g} is still missing .", ", and this pair does not make {g} ."),
    "hit": (", so {g} is really there .", ", and {g} is safe ."),
    "lost": (", so {g} is gone .", ", and {g} is not there ."),
}

SENTENCES = {
    "setup": ("we want {t} using {a} , {b} and {c} .", "the goal is {t} and i have {a} , {b} and {c} .",
              "i need to build {t} out of {a} , {b} and {c} .", "given {a} , {b} and {c} , the target is {t} .",
              "from {a} , {b} and {c} we should reach {t} ."),
    "plan_forward": ("my plan is to join two numbers first and then use the last one .",
                     "i will try pairs and see what the last number gives .",
                     "first i combine two of them , then i look at the rest .",
                     "the idea is to go forward from the numbers , one pair at a time .",
                     "i plan to combine a pair first and then see the rest ."),
    "plan_backward": ("my plan is to start from {t} and undo the last move .",
                      "i will work backwards from {t} .",
                      "first i ask which number comes last , going back from {t} .",
                      "the idea is to go in reverse from {t} , one number at a time .",
                      "i plan to go backwards from {t} first ."),
    "careful": ("i will check every result carefully .", "i want to be careful and verify each value .",
                "let me go slowly and look at everything again .", "i plan to double check what i compute .",
                "it is safe to verify each move .", "i will go slowly and check each value ."),
    "hasty": ("i will be quick and trust my results .", "no need to verify anything here .",
              "let me go fast without looking back .", "i plan to trust what i compute .",
              "it is fine to skip the checks .", "i will go fast and trust each value ."),
    "switching": ("if a path fails i will change the approach .", "after a dead end i want to try the other way .",
                  "i plan to switch sides when something fails .", "when a pair fails i turn the search around .",
                  "if a pair fails i will try the other way ."),
    "staying": ("if a path fails i will keep this approach .", "after a dead end i want to go on in the same way .",
                "i plan to stay with one approach .", "when a pair fails i simply take the next one .",
                "if a pair fails i will go on in the same way ."),
    "backtrack": ("scrap that , we are at {a} , {b} and {c} again .",
                  "this does not lead anywhere , back to {a} , {b} and {c} .",
                  "dead end , i return to {a} , {b} and {c} .",
                  "that fails , let me go back to {a} , {b} and {c} .",
                  "i drop this and start over with {a} , {b} and {c} .",
                  "undo that move , we have {a} , {b} and {c} once more .",
                  "not this way , again i hold {a} , {b} and {c} .", "i step back and take {a} , {b} and {c} again .",
                  "drop this , we return to {a} , {b} and {c} ."),
    "to_backward": ("maybe going in reverse from {t} to {a} , {b} and {c} is easier .",
                    "alternatively , i could work backwards from {t} with {a} , {b} and {c} .",
                    "let me try another way and undo moves from {t} with {a} , {b} and {c} .",
                    "a different approach is to start at {t} and aim for {a} , {b} and {c} .",
                    "instead , think back from {t} using {a} , {b} and {c} .",
                    "what if i turn it around and begin at {t} with {a} , {b} and {c} ?",
                    "another idea is to go from {t} in reverse with {a} , {b} and {c} ."),
    "to_forward": ("maybe going forward from {a} , {b} and {c} to {t} is easier .",
                   "alternatively , i could combine {a} , {b} and {c} directly for {t} .",
                   "let me try another way and build up from {a} , {b} and {c} to {t} .",
                   "a different approach is to join {a} , {b} and {c} first for {t} .",
                   "instead , move forward with {a} , {b} and {c} to {t} .",
                   "what if i simply pair up {a} , {b} and {c} for {t} ?",
                   "another idea is to go forward with {a} , {b} and {c} to {t} ."),
    "sure": ("i am quite sure about {state} .", "{state} looks right to me .", "i feel good about {state} .",
             "no doubt , {state} is promising .", "i am confident in {state} .", "clearly {state} is a good choice .",
             "i have no doubt about {state} ."),
    "unsure": ("i am not certain about {state} .", "{state} may not work .", "i have some doubt about {state} .",
               "i feel unsure about {state} .", "{state} looks hard to use .", "perhaps {state} is a weak choice .",
               "it is hard to be sure about {state} ."),
    "conclude": ("that settles it , {expr} .", "the answer is {expr} .", "therefore {expr} makes {t} .",
                 "done , {expr} equals {t} .", "the solution is {expr} .", "finally we can write {expr} for {t} .",
                 "we are done with {expr} ."),
}  # fmt: skip
STATES = {"move": "{r} and {c}", "need": "{m} from {a} and {b}", "hit": "{g}"}
EXPRESSIONS = ("( {x} {o} {y} ) {q} {z}", "{z} {q} ( {x} {o} {y} )")
PROMPTS = {
    "plain": "use {a} , {b} and {c} to make {t} .",
    "sums": "make {t} from {a} , {b} and {c} with only plus and minus .",
}


@dataclass(frozen=True)
class Core:
    """One way to say one sub-kind of step: its template (holes in braces) and what it is about.

    op is the arithmetic operation ("" if none), about the situation a check or feeling refers to
    ("" if none), held_out whether training data must not use it.
    """

    subkind: str
    template: str
    op: str = ""
    about: str = ""
    held_out: bool = False


def _marked(options: tuple[str, ...]) -> list[tuple[str, bool]]:
    return [(text, i == len(options) - 1) for i, text in enumerate(options)]


def _moves() -> list[Core]:
    return [Core("first_move", f"{text} {tail}", op, "move", held) for op, options in MOVES.items()
            for text, held in _marked(options) for tail in KEEPS]  # fmt: skip


def _pairs() -> list[Core]:
    rows = []
    for text, held in _marked(PAIRS):
        for listing in RESULTS.values():
            said = text.replace("{results}", listing)
            rows += [Core("last_pair", f"{said} {tail}", about="miss", held_out=held) for tail in MISSES]
            rows += [Core("last_pair_hit", f"{said} {tail}", about="hit", held_out=held) for tail in HITS]
    return rows


def _needs() -> list[Core]:
    return [
        Core("backward_move", text, op, "need", held)
        for op, options in NEEDS.items()
        for text, held in _marked(options)
    ]


def _checks() -> list[Core]:
    rows = []
    for op, phrases in PHRASES.items():
        for phrase in phrases:
            rows += [Core("question", q.replace("{fact}", phrase), op, "", held) for q, held in _marked(QUESTIONS)]
            for about, tails in CHECK_TAILS.items():
                subkinds = {"lost": ["correct"], "hit": ["confirm"], "miss": ["confirm"]}.get(
                    about, ["confirm", "correct"]
                )
                rows += [
                    Core(kind, f"{text.replace('{fact}', phrase)} {tail}", op, about, held)
                    for kind in subkinds
                    for text, held in _marked(CONFIRMS if kind == "confirm" else CORRECTS)
                    for tail in tails
                ]
    return rows


def _plain_sentences() -> list[Core]:
    rows = []
    for kind, options in SENTENCES.items():
        for text, held in _marked(options):
            if "{state}" in text:
                abouts = {k: s for k, s in STATES.items() if not (kind == "unsure" and k == "hit")}
                rows += [Core(kind, text.replace("{state}", s), "", about, held) for about, s in abouts.items()]
            elif "{expr}" in text:
                rows += [Core(kind, text.replace("{expr}", e), "", str(i), held) for i, e in enumerate(EXPRESSIONS)]
            else:
                rows.append(Core(kind, text, held_out=held))
    return rows


def natural(tokens: str) -> str:
    """Blank-separated tokens as natural text: no blank before , . ? ) or after (. The tokenizer decodes alike."""
    for mark in ",.?)":
        tokens = tokens.replace(f" {mark}", mark)
    return tokens.replace("( ", "(")


def all_cores() -> list[Core]:
    """Every core of every sub-kind, held-out ones included (about 2,500), in a fixed order."""
    return _moves() + _pairs() + _needs() + _checks() + _plain_sentences()


def vocabulary() -> list[str]:
    """Every word of the language in a fixed order: integers 0..99, then words and symbols sorted.

    The blank line and the special tokens are not words and are added by the tokenizer.
    """
    texts = [c.template for c in all_cores()] + list(OPENERS) + list(PROMPTS.values())
    words = {w for text in texts for w in text.split() if not w.startswith("{")}
    return [str(n) for n in range(100)] + sorted(words | {"+", "-", "*", "(", ")", "big"})
