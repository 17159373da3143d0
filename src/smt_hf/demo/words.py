"""Word lists and the cast of the built-in children's stories (see `smt_hf.demo.stories`)."""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

GIRLS = (
    "Ada Amy Anna Bella Clara Ella Emma Gina Ivy Jane Kate Leah Lily Lucy Maya Mia Molly Nina Nora Rosa Sara Tina Zoe"
).split()
BOYS = (
    "Adam Ben Carl Dan Eli Finn Hugo Jack Joe Kai Leo Luke Marco Max Noah Omar Oscar Paul Ravi Sam Theo Tim Tom"
).split()
ADULTS = (("Mom", "she"), ("Dad", "he"), ("Grandma", "she"), ("Grandpa", "he"))
PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}

HERO_ANIMALS = "bear cat fox mouse pig rabbit".split()
ANIMALS = "bird duck frog goat hedgehog kitten lamb owl pony puppy squirrel turtle".split()
TRAITS = "brave cheerful clever curious friendly funny gentle happy kind little quiet shy small smart young".split()

COLOR_LIKE = {
    "red": "a strawberry",
    "blue": "the sky",
    "green": "the grass",
    "yellow": "the sun",
    "orange": "a carrot",
    "purple": "a plum",
    "pink": "a rose",
    "white": "the snow",
    "brown": "a nut",
    "black": "the night",
    "gray": "a cloud",
    "silver": "the moon",
    "golden": "a crown",
}
COLORS = tuple(COLOR_LIKE)

FLYERS = "cap hat kite plane ribbon scarf".split()
WRAPS = "blanket coat jacket scarf sweater towel".split()
RAIN_GEAR = ("umbrella", "raincoat")
DISHES = "basket box dish plate tin tray".split()
POTS = "box bucket can cup jar pot".split()
TOY_CLUES = {
    "ball": "It is round and you can roll it",
    "boat": "It can sail on the water",
    "car": "It has four wheels",
    "doll": "It has long hair and a dress",
    "drum": "It goes boom, boom, boom",
    "horn": "It makes a loud sound",
    "kite": "It flies high on a string",
    "plane": "It has two wings",
    "robot": "It can walk and say hello",
    "train": "It says choo choo",
    "truck": "It can carry heavy stones",
    "whistle": "You blow in it to make a sound",
}
TOYS = tuple(TOY_CLUES)
BREAKABLE_TOYS = "boat car doll drum plane robot train truck".split()
PRIZES = "badge cap cup flag medal ribbon".split()
TREASURES = "bag bottle box crown key shell stone".split()
GIFTS = "book cup drum hat lamp necklace puppet robot scarf".split()
LIGHTS = "lamp lantern torch".split()

WEATHERS = "bright cloudy cold cool lovely quiet sunny warm windy".split()
TIMES = "afternoon day morning Sunday Monday Friday".split()
TREATS = tuple(f"{fruit} {kind}" for fruit in "apple berry cherry plum".split() for kind in ("cake", "pie"))
PLANTS = "bean plant|daisy|rose|sunflower|tomato plant|tulip".split("|")
SNACKS = "a cookie|a pear|a sandwich|an apple|some bread|some grapes|some nuts".split("|")

HAPPY = ("full of joy", "glad", "happy", "very happy", "very proud")
SAD = ("sad", "unhappy", "upset", "very sad", "worried")
WENT = ("hurried", "ran", "skipped", "walked", "went")


class Person(NamedTuple):
    """A character with pronouns; formats as the name."""

    name: str
    kind: str
    he: str
    him: str
    his: str

    def __str__(self) -> str:
        return self.name

    @property
    def He(self) -> str:
        return self.he.capitalize()

    @property
    def His(self) -> str:
        return self.his.capitalize()


class Thing(NamedTuple):
    """A colored object; formats as "red ball"."""

    color: str
    noun: str

    def __str__(self) -> str:
        return f"{self.color} {self.noun}"

    @property
    def a(self) -> str:
        return with_article(str(self))


class Place(NamedTuple):
    """An outdoor place: "at the park", "the park" and where something can hide there; formats as "the park"."""

    at: str
    name: str
    spots: tuple[str, str, str]

    def __str__(self) -> str:
        return self.name


PLACES = (
    Place("at the park", "the park", ("under a bench", "behind the slide", "near a tall tree")),
    Place("at the beach", "the beach", ("behind a big rock", "under an old boat", "near a sand castle")),
    Place("in the forest", "the forest", ("under some leaves", "behind an old tree", "near a mossy log")),
    Place("in the orchard", "the orchard", ("under an apple tree", "behind a ladder", "near the stone wall")),
    Place("at the farm", "the farm", ("behind the barn", "under the hay", "near the gate")),
    Place("at the lake", "the lake", ("under the dock", "behind a bush", "near the wet rocks")),
    Place("in the meadow", "the meadow", ("in the tall grass", "behind a bush", "near the flowers")),
    Place("by the river", "the river", ("under the bridge", "between two rocks", "near a fallen log")),
    Place("on the hill", "the hill", ("behind a big rock", "under a small tree", "in the tall grass")),
    Place("at the market", "the market", ("under a table", "behind a cart", "near the fish shop")),
    Place("at the playground", "the playground", ("under the slide", "behind the swings", "near the fence")),
    Place("by the pond", "the pond", ("under a bush", "behind an old log", "near the tall reeds")),
)


def with_article(words: str) -> str:
    """Put "a" or "an" before the words, as their first letter asks (no listed word is an exception)."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


class Cast:
    """Who, what and where of one story, drawn from `rng` by `rng.random()` only, which every Python draws alike."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self.hero = self._child()
        self.friend = self._child()
        while self.friend.name == self.hero.name:
            self.friend = self._child()
        if self.chance(0.2):
            self.hero = self.hero._replace(kind=self.of(HERO_ANIMALS))
        name, he = self.of(ADULTS)
        self.adult = Person(name, "adult", *PRONOUNS[he])
        self.animal = self.of(ANIMALS)
        self.place = self.of(PLACES)
        first = int(3 * self._random())
        self.spot, self.other_spot = self.place.spots[first], self.place.spots[first - 1]
        self.thing = Thing("", "")

    def of(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(len(options) * self._random())]

    def pick(self, *options: T) -> T:
        """One of the arguments, all equally likely."""
        return options[int(len(options) * self._random())]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def maybe(self, sentence: str) -> str:
        """The sentence or, half the time, nothing."""
        return sentence if self._random() < 0.5 else ""

    def take(self, nouns: Sequence[str]) -> Thing:
        """Draw the object that the story is about."""
        self.thing = Thing(self.of(COLORS), self.of(nouns))
        return self.thing

    def day(self) -> str:
        """The start of a sentence that opens the action, such as "One sunny morning"."""
        return f"One {self.of(WEATHERS)} {self.of(TIMES)}"

    def _child(self) -> Person:
        if self.chance(0.5):
            return Person(self.of(GIRLS), "girl", *PRONOUNS["she"])
        return Person(self.of(BOYS), "boy", *PRONOUNS["he"])
