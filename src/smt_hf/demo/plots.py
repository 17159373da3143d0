"""The plots of the built-in children's stories: functions from a cast to paragraphs of sentences.

Each plot draws its object with `c.take(...)`, names the hero, the object with its color and the place in its first
paragraph, and needs all three again in its last one. `c.pick(...)` holds the paraphrases and the branches; an empty
sentence is left out.
"""

from collections.abc import Callable

from .words import (
    BREAKABLE_TOYS,
    COLOR_LIKE,
    DISHES,
    FLYERS,
    GIFTS,
    HAPPY,
    LIGHTS,
    PLANTS,
    POTS,
    PRIZES,
    RAIN_GEAR,
    SAD,
    SNACKS,
    TOY_CLUES,
    TOYS,
    TRAITS,
    TREASURES,
    TREATS,
    WENT,
    WRAPS,
    Cast,
    with_article,
)

Paragraphs = list[list[str]]


def _opening(c: Cast) -> str:
    h, p, who = c.hero, c.place, with_article(f"{c.of(TRAITS)} {c.hero.kind}")
    return c.pick(
        f"Once upon a time, there was {who} named {h}.",
        f"Once upon a time, {who} named {h} lived near {p}.",
        f"There once was {who} named {h}.",
        f"{h} was {who} who lived near {p}.",
        f"In a small house near {p}, there lived {who} named {h}.",
        f"{h} was {who} who loved to play {p.at}.",
    )


def lost_toy(c: Cast) -> Paragraphs:
    h, f, t, p = c.hero, c.friend, c.take(TOYS), c.place
    found = c.pick("There it was!", "And there was the toy!", "The toy was there!")
    start = [
        _opening(c),
        c.pick(
            f"{h.He} had {t.a}, and it was {h.his} favorite toy.",
            f"{h.He} had {t.a}, and {h.he} loved it more than any other toy.",
            f"Everywhere {h.he} went, {h.he} took {t.a} along.",
        ),
        c.pick(f"{c.day()}, {h} {c.of(WENT)} to {p} with the {t}.", f"{c.day()}, {h} took the {t} to {p}."),
        c.pick(f"{h.He} played there for a long time.", f"{h.He} had a lot of fun.", "There was so much to see!"),
    ]
    search = [
        c.pick("But when it was time to go home, the toy was gone.", f"But then {h} could not find the toy."),
        c.pick(f"{h} felt {c.of(SAD)}.", f"{h} began to cry.", f'"Oh no! Where is it?" said {h}.'),
        f"{h.He} looked {c.other_spot}, but {c.pick('it was not there', 'there was nothing', 'no toy was there')}.",
    ]
    search += c.pick(
        [
            f'"{c.pick("Do not worry", "Do not cry")}," said {h.his} friend {f}. "We will look together."',
            c.pick(f"Then {f} saw something {t.color} {c.spot}.", f"Soon {f} found something {c.spot}."),
            c.pick("It was the toy!", "It was the lost toy!"),
        ],
        [
            c.pick(f"Just then, {with_article(c.animal)} came by.", f"Then {h} met {with_article(c.animal)}."),
            c.pick("It wanted to help.", "It seemed to know what was wrong."),
            f"The {c.animal} looked {c.spot}. {found}",
        ],
        [
            c.pick(f"Then {h} sat down to think.", f"{h} closed {h.his} eyes and tried to remember."),
            f'"{c.pick("Where did I play first", "Where did I sit down to rest")}?" {h.he} asked.',
            f"{h.He} {c.pick('ran', 'went', 'hurried')} back and looked {c.spot}. {found}",
        ],
    )
    end = [
        c.pick(f"{h} was {c.of(HAPPY)} again.", f"{h} jumped with joy.", f"{h} laughed and danced."),
        c.pick(
            f"All the way home from {p}, {h.he} held the {t} close.",
            f"{h.He} hugged the {t} and carried it home from {p}.",
            f"After that day, {h.he} never left the {t} behind {p.at} again.",
        ),
    ]
    return [start, search, end]


def sharing(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(TOYS), c.place, c.adult
    start = [
        _opening(c),
        c.pick(f"{a} gave {h.him} {t.a}.", f"For {h.his} birthday, {h.he} got {t.a}.", f"{h.He} had {t.a}."),
        c.pick(f"{c.day()}, {h} took it to {p}.", f"{c.day()}, {h} {c.of(WENT)} to {p} to play with it."),
        c.pick(f"{h.His} friend {f} was there too.", f"There {h.he} met {h.his} friend {f}."),
    ]
    ask = c.pick(
        f'"Can I play with your {t.noun}?" asked {f}.',
        f'"What a nice {t.noun}!" said {f}. "Can I try it?"',
        f'"I want to play with it too," said {f}.',
    )
    middle = c.pick(
        [
            ask,
            c.pick(f'"No, it is mine!" said {h}.', f"{h} shook {h.his} head and held the toy close."),
            c.pick(f"{f} went away and sat {c.spot}.", f"{f} was {c.of(SAD)} and sat down {c.spot}."),
            c.pick(f"{h} played alone, but it was no fun.", f"{h} felt bad, because {f} was a good friend."),
            f'So {h} {c.of(WENT)} to {f} and said, "{c.pick("I am sorry", "I was not nice")}. Come and play with me!"',
        ],
        [
            ask,
            c.pick(f"{h} thought about it for a moment.", f"At first, {h} was not sure."),
            f'Then {h} said, "{c.pick("Yes, we can take turns", "Yes, but please be careful")}."',
            c.pick(f"{h} played first, and then {f} had a turn.", f"{f} was very careful with the toy."),
            f'"Thank you," said {f}, and gave {h} {c.of(SNACKS)}.',
        ],
        [
            ask,
            f"But they both {c.pick('pulled at the toy', 'wanted to be first')}, and it fell in the mud.",
            c.pick(f"{h} was angry, and {f} began to cry.", "Now nobody could play with it."),
            f'"Toys are more fun when you share them," said {a}.',
            c.pick("So the two friends washed the toy together.", f"{a} helped them to clean the toy."),
        ],
    )
    end = [
        c.pick(
            f"{h} and {f} played with the {t} {p.at} until it was dark.",
            f"All day long, {h} and {f} played {p.at} with the {t}.",
        ),
        c.pick(f"{h} learned that it feels good to share.", f"Sharing made {h} happy.", "They were best friends."),
    ]
    return [start, middle, end]


def rain(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(RAIN_GEAR), c.place, c.adult
    animal, old = with_article(c.animal), c.pick("man", "woman")
    start = [
        _opening(c),
        c.pick(f"{a} had given {h.him} {t.a}.", f"{h.He} had {t.a} and took it along every day."),
        f"One {c.pick('cloudy', 'gray', 'cool')} {c.pick('day', 'morning', 'afternoon')}, {h} {c.of(WENT)} to {p}.",
        c.pick("Soon it began to rain.", "Then big drops of rain fell from the sky.", "It started to rain hard."),
        c.pick(f"{h} was glad to have the {t.noun}.", f"{h} stayed dry, thanks to the {t.noun}."),
    ]
    middle = c.pick(
        [
            c.pick(f"Then {h.he} saw {h.his} friend {f} {c.spot}.", f"{h.His} friend {f} was {c.spot}, all wet."),
            c.pick(f'"I am so cold," said {f}.', f'"I want to go home, but I am wet," said {f}.'),
            f'"{c.pick("Come here", "I can help you")}," said {h}. "There is room for two."',
            c.pick(f"They held the {t.noun} over their heads and laughed.", "Together they stayed warm and dry."),
        ],
        [
            c.pick(f"Then {h.he} heard a sound {c.spot}.", f"Something moved {c.spot}."),
            f"It was {animal}, and it was {c.pick('cold and wet', 'shaking in the rain', 'afraid of the rain')}.",
            c.pick(f'"You poor thing," said {h}.', f'"Do not be afraid," said {h}.'),
            f"{h.He} held the {t.noun} over the {c.animal} until {c.pick('the rain stopped', 'the sun came out')}.",
        ],
        [
            f"Then {h.he} saw an old {old} with {c.pick('a heavy bag', 'a big bag of bread', 'a bag full of books')}.",
            c.pick("The bag was getting wet.", f"The old {old} could not walk fast."),
            f'"{c.pick("Let me help you", "I can help you")}," said {h}, and held the {t.noun} over the bag.',
            f'They walked home slowly. "{c.pick("What a kind child", "You are so kind")}," said the old {old}.',
        ],
    )
    end = [
        c.pick(f"Later, there was a rainbow over {p}.", f"When the sun came back, {p} looked bright and new."),
        c.pick(
            f"{h} went home with the wet {t} and felt {c.of(HAPPY)}.",
            f"{h} shook the water from the {t} and smiled.",
            f"{h} looked at the {t} and was glad to have helped.",
        ),
    ]
    return [start, middle, end]


def baking(c: Cast) -> Paragraphs:
    h, f, t, p, a, treat = c.hero, c.friend, c.take(DISHES), c.place, c.adult, c.of(TREATS)
    kind = treat.split()[-1]
    on = "on" if t.noun in ("dish", "plate", "tray") else "in"
    start = [
        _opening(c),
        c.pick(
            f"{h.His} friend {f} was having a party {p.at}.", f"{h.He} was going to meet {h.his} friend {f} {p.at}."
        ),
        c.pick(
            f'"Let us bake {with_article(treat)}," said {a}.', f"{h} and {a} baked {with_article(treat)} for that day."
        ),
        c.pick(f"{h} got out {t.a} to carry it.", f"{a} found {t.a} to put it {on}."),
    ]
    middle = [
        c.pick("First, they mixed flour, eggs and milk.", "They put flour, milk and eggs in a bowl."),
        *c.pick(
            [
                f"{h} {c.pick('tasted a little', 'tried some')} and made a face.",
                '"Yuck!"',
                c.pick("They had forgotten the sugar!", "There was no sugar in it!"),
                c.pick(f"{a} laughed and added some.", "So they added two big spoons of sugar."),
            ],
            [
                c.pick(f"But {h} dropped the bag of flour.", f"But then {h} bumped into the bag of flour."),
                c.pick("Now the whole kitchen was white!", "There was flour on the floor and on the chairs!"),
                c.pick(f"{a} laughed, and they cleaned it up.", f'"I am sorry," said {h}, and cleaned it all up.'),
            ],
            [
                c.pick("But they played a game and forgot the oven.", "But the oven was too hot."),
                c.pick("Soon there was black smoke!", "Soon something smelled bad!"),
                f'"{c.pick("We can try again", "Let us make a new one")}," said {a}. The second one was perfect.',
            ],
            [
                c.pick("It smelled so good in the oven!", f"{h} watched the oven and waited."),
                c.pick(f'"Can I eat it now?" asked {h}.', f"{h} wanted to eat it all at once."),
                f'"{c.pick("No, it is for your friend", "It is better to share it")}," said {a}.',
            ],
        ),
        c.pick(
            f"At last the {kind} was done, and {h} put it {on} the {t}.",
            f"When the {kind} was cool, {h} put it {on} the {t}.",
        ),
    ]
    end = [
        c.pick(f"Then {h} carried the {t} to {p}.", f"Slowly, {h} walked to {p} with the {t}."),
        f'"{c.pick(f"This is the best {treat} of all", f"I love this {treat}", f"What a good {treat}")}!" said {f}.',
        c.pick(
            f"Soon the {t} was empty, and {h} was {c.of(HAPPY)}.",
            f"{h} and {f} ate until there was nothing left {on} the {t}.",
        ),
    ]
    return [start, middle, end]


def scared_animal(c: Cast) -> Paragraphs:
    h, f, t, p, a, animal = c.hero, c.friend, c.take(WRAPS), c.place, c.adult, c.animal
    start = [
        _opening(c),
        c.pick(f"{a} had made {h.him} {t.a}.", f"{h.He} had {t.a} that was soft and warm."),
        c.pick(f"{c.day()}, {h} took it along to {p}.", f"{c.day()}, {h} {c.of(WENT)} to {p} with it."),
        c.pick(f"There {h.he} heard a small sound {c.spot}.", f"There {h.he} saw something move {c.spot}."),
    ]
    middle = [
        c.pick(f"It was a little {animal}!", f"It was {with_article(animal)}, all alone!"),
        c.pick("It was so scared that it shook.", f"The {animal} was very scared.", "It tried to hide."),
        f'"{c.pick("Do not be afraid", "I will not hurt you", "You are safe with me")}," {h} said softly.',
        c.pick(f"{h} sat down and waited.", f"{h} stayed very still.", f"{h} gave it {c.of(SNACKS)}."),
        c.pick(f"After a while, the {animal} came closer.", "Step by step, it came closer."),
        f"{h.He} wrapped it in the {t.noun}, and {c.pick('it stopped shaking', 'it grew calm', 'soon it was warm')}.",
    ]
    middle += c.pick(
        [
            c.pick(f"Then {h} heard a soft call.", "Then a bigger animal came."),
            c.pick("It was the mother!", "The mother had come to find her baby!"),
            f"The little {animal} {c.pick('ran to her', 'was so happy to see her')}.",
        ],
        [
            c.pick("One of its legs was hurt.", "It had a hurt leg."),
            f"{h} took the {animal} home, and {a} {c.pick('took care of the leg', 'knew what to do')}.",
            c.pick("After three days, it was well again.", "Soon it could run and play again."),
        ],
        [
            c.pick(f"{h.His} friend {f} came to look.", f"Then {h.his} friend {f} came by."),
            c.pick(f'"It is lost," said {f}.', f'"Where is its home?" asked {f}.'),
            f"Together they {c.pick('found its home', 'took it home to its mother')}.",
        ],
    )
    end = [
        c.pick(f"After that, the {animal} was not scared of {h}.", f"{h} was {c.of(HAPPY)}."),
        c.pick(
            f"Each time {h} came to {p} with the {t}, the {animal} came to say hello.",
            f"When {h} sat on the {t} {p.at}, the {animal} sat there too."
            if t.noun in ("blanket", "towel")
            else f"When {h} wore the {t} {p.at}, the {animal} came to play.",
            f"On the way home from {p}, {h} hugged the {t} and smiled.",
        ),
    ]
    return [start, middle, end]


def promise(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(GIFTS), c.place, c.adult
    start = [
        _opening(c),
        c.pick(f"{h.His} friend {f} had {t.a}.", f"{h.His} best friend {f} had {t.a}, and {h} loved it."),
        c.pick(f'"Can I take it home for one day?" asked {h}.', f'"May I have it until tomorrow?" asked {h}.'),
        f'"Yes," said {f}. "{c.pick("But bring", "Please bring")} it to {p} tomorrow."',
        c.pick(f'"I promise," said {h}.', f'"I will, I promise!" said {h}.'),
    ]
    middle = c.pick(
        [
            f"The next day, {c.pick('it rained and rained', 'the wind was cold', 'there was a storm')}.",
            c.pick(f"{h} wanted to stay in bed.", f"It was so warm and dry at home, and {h} did not want to go out."),
            c.pick(f"But {h.he} remembered the promise.", f'"But I made a promise," {h.he} said.'),
            f"So {h} {c.pick('put on big boots', 'put on a warm coat', 'took an umbrella')} and went out.",
        ],
        [
            c.pick("The next day, some children came to the door.", "The next day, the other children were outside."),
            f'"{c.pick("Come and swim", "Come and play")} with us!" they said.',
            c.pick(f"It was hard for {h} to say no.", f"{h} loved to play with them."),
            f'"I am sorry, but {c.pick("I made a promise", f"{f} is waiting for me")}," said {h}.',
        ],
        [
            f"The next day, {h} {c.pick('played at home', f'helped {a}', 'read a long story')}.",
            c.pick("The time went by so fast.", "Soon the sun was low in the sky."),
            c.pick(f"Then {h} remembered the promise!", f'"Oh no, my promise!" cried {h}.'),
            c.pick(f"{h.He} ran all the way and did not stop.", f"{h.He} ran as fast as {h.he} could."),
        ],
    )
    end = [
        c.pick(f"{f} was waiting {p.at}.", f"When {h} came to {p}, {f} was there."),
        c.pick(f'"Here is your {t}," said {h}.', f"{h} gave {f} the {t}."),
        f'"{c.pick("You kept your promise", "I knew you would come", "You are a true friend")}!" said {f}.',
        c.pick(f"{h} felt {c.of(HAPPY)}.", "They smiled at each other.", f"Then {h} and {f} played together."),
    ]
    return [start, middle, end]


def seed(c: Cast) -> Paragraphs:
    h, f, t, p, a, plant = c.hero, c.friend, c.take(POTS), c.place, c.adult, c.of(PLANTS)
    start = [
        _opening(c),
        c.pick(
            f"{c.day()}, {h.he} found a seed {p.at}.", f"{c.day()}, {h.his} friend {f} gave {h.him} a seed {p.at}."
        ),
        c.pick(f'"What will it be?" {h.he} asked.', f"{h.He} wanted to see it grow."),
        c.pick(f"At home, {h} put the seed in {t.a} full of earth.", f"{a} gave {h.him} {t.a} for the seed."),
    ]
    middle = [
        c.pick(f"Every day, {h} gave it some water.", f"Every morning, {h.he} gave the seed a drink of water."),
        c.pick("But nothing came up.", "For a long time, nothing happened.", "But the seed seemed to sleep."),
        *c.pick(
            [
                c.pick(f'"It will never grow," said {h}.', f"{h} felt {c.of(SAD)}."),
                f'"{c.pick("Just wait", "Good things take time")}," said {a}.',
            ],
            [
                c.pick("One day, a bird wanted to eat the seed.", "Then a hungry mouse came for the seed.")
                if h.kind != "mouse"
                else "One day, a bird wanted to eat the seed.",
                f'"{c.pick("Go away", "That is not for you")}!" said {h}, and it {c.pick("left", "went away")}.',
            ],
            [
                f'"Maybe it needs more {c.pick("sun", "light")}," said {a}.',
                f"So {h} put the {t.noun} {c.pick('by the window', 'in the sun')}.",
            ],
            [
                c.pick("Then the nights grew cold.", "One night, there was a lot of wind."),
                f"{h} {c.pick('took the seed inside', 'kept the seed warm')}.",
            ],
        ),
        c.pick(f"{h} waited and waited.", f"{h.He} did not give up."),
        c.pick("At last, a tiny green leaf came up!", "Then, one morning, there was a tiny green leaf!"),
    ]
    end = [
        c.pick(f"Weeks later, a big {plant} stood in the {t}.", f"It grew and grew, and the {t} held a tall {plant}."),
        c.pick(f"{h} took it to {p} to show it to {f}.", f"{h} carried it to {p}, and {f} came to see it."),
        c.pick(
            f'"{c.pick("How pretty", "It is so big")}!" said {f}. {h} was {c.of(HAPPY)}.',
            f'"It was only a small seed," said {h}, "and now look at it!"',
        ),
    ]
    return [start, middle, end]


def guessing(c: Cast) -> Paragraphs:
    h, f, t, p = c.hero, c.friend, c.take(TOYS), c.place
    first = TOYS.index(t.noun) + 1 + int(5 * c.chance(0.5))
    guesses = [with_article(TOYS[i % len(TOYS)]) for i in (first, first + 3)]
    start = [
        _opening(c),
        c.pick(f"{c.day()}, {h.he} put {t.a} in a bag.", f"{c.day()}, {h.he} hid {t.a} in a bag."),
        c.pick(f"{h.He} took the bag to {p}.", f"Then {h.he} {c.of(WENT)} to {p} with the bag."),
        c.pick(
            f'"What is in my bag?" {h} asked {h.his} friend {f}.',
            f'"Guess what I have!" {h} said to {h.his} friend {f}.',
        ),
    ]
    middle = [
        f'"Is it {c.of(SNACKS)}?" asked {f}. "{c.pick("No, you cannot eat it", "No, it is a toy")}," said {h}.',
        f'"Is it {guesses[0]}?" asked {f}. "No!" {c.pick("laughed", "said")} {h}.',
        f'"It is {t.color} like {COLOR_LIKE[t.color]}."',
        c.pick(f"{f} thought very hard.", f"{f} looked at the bag.", f"{f} touched the bag."),
        f'"Then it is {guesses[1]}!" "{c.pick("No, try again", "No, guess again")}," said {h}. "{TOY_CLUES[t.noun]}."',
    ]
    end = [
        c.pick(f"{f} jumped up and down.", f"Now {f} knew it.", f"{f} smiled a big smile."),
        f'"{c.pick("I know! ", "")}It is {t.a}!" said {f}.',
        f'"{c.pick("Yes", "That is right")}!" said {h}, and {c.pick("opened the bag", "took it out of the bag")}.',
        c.pick(
            f"Then {h} and {f} played with it {p.at} until it was time to go home.",
            f"They stayed {p.at} and played all day.",
            f"From then on, they played the guessing game each time they met {p.at}.",
        ),
    ]
    return [start, middle, end]


def broken_toy(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(BREAKABLE_TOYS), c.place, c.adult
    start = [
        _opening(c),
        c.pick(f"{h.His} friend {f} had {t.a}.", f"{h.His} friend {f} had a new toy, {t.a}."),
        c.pick(f"{c.day()}, they played with it {p.at}.", f"{c.day()}, {f} let {h} play with it {p.at}."),
        c.pick(f"When {f} was not looking, {h} dropped it.", f"While {f} got a drink, {h} sat on it by mistake."),
        c.pick("Crack! The toy was broken.", "Oh no! It broke."),
    ]
    middle = [
        c.pick(f"{h} was afraid to tell {f}.", f'"{f} will be so angry," thought {h}.'),
        *c.pick(
            [
                f"{h.He} hid the toy {c.spot} and said nothing.",
                c.pick(f"But {h} felt bad inside.", f"But {h} could not stop thinking about it."),
            ],
            [
                c.pick(f'"Did you see my toy?" asked {f}.', f'"Where is my toy?" asked {f}.'),
                c.pick(f"{h} wanted to say no, but that was not true.", f"{h}'s face turned red."),
            ],
            [
                f"{h.He} told {a} about it.",
                f'"{c.pick("You must tell the truth", "A good friend tells the truth")}," said {a}.',
            ],
        ),
        f'Then {h} took a deep breath. "I broke your toy," {h.he} told {f}. "I am {c.pick("so ", "very ", "")}sorry."',
        c.pick(f"{f} was {c.pick('sad', 'upset', 'unhappy')} at first.", f"{f} was quiet for a moment."),
        f'"Thank you for {c.pick("telling me", "telling me the truth")}," said {f}.',
        c.pick(f"{a} had some glue and helped them.", "Together they fixed it with glue and string."),
    ]
    end = [
        c.pick(f"Soon the {t} was as good as new.", f"The next day, the {t} was not broken anymore."),
        c.pick(
            f"{h} and {f} went back to {p} and played with it again.",
            f"{f} let {h} be the first to play with it {p.at}.",
            f"When {h} and {f} were {p.at} again, they were very careful with it.",
        ),
        c.pick(f"{h} was glad that {h.he} had told the truth.", "Telling the truth was the right thing to do.", ""),
    ]
    return [start, middle, end]


def race(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(PRIZES), c.place, c.adult
    start = [
        _opening(c),
        c.pick(f"Soon there would be a race {p.at}.", f"Every year, there was a big race {p.at}."),
        c.pick(f"The winner would get {t.a}.", f"The prize was {t.a}.", f"{h} wanted to win the prize, {t.a}."),
        c.pick(
            f"Every day, {h} and {h.his} friend {f} ran up and down the road.",
            f"{h.His} friend {f} wanted to win it too.",
        ),
    ]
    middle = [
        c.pick("At last the day of the race came.", "Then it was time for the race."),
        c.pick(f'"Ready, set, go!" called {a}.', f"All the children ran, and {h} ran fast."),
    ]
    middle += c.pick(
        [
            c.pick(f"{h} was first! But then {f} fell down.", f"Next to {h} ran {f}, who fell over a stone."),
            f'"{c.pick("My leg hurts", "I cannot run")}," cried {f}.',
            c.pick(f"{h} stopped and helped {f} to get up.", f"{h} turned back to help."),
            c.pick("They walked to the end together, and they were last.", "They were the last ones to come in."),
            f'But {a} said, "{c.pick("The prize is for the kindest one", "A kind heart is worth more than a win")}."',
        ],
        [
            c.pick(f"But {f} was faster and ran past {h}.", f"{f} was in front, and {h} was second."),
            c.pick(f"{h} did not give up.", f'"I can do it," {h} said to {h.him}self.'),
            c.pick(f"{h.He} ran and ran.", f"{h.He} ran faster than ever before."),
            f"At the very end, {h} {c.pick('was first', f'ran past {f}')}.",
            f'"{c.pick("Good race", "You were great")}, {h}!" said {f}.',
        ],
        [
            f"At first, {h} was {c.pick('the last one', 'far behind')}.",
            f"Some children stopped {c.pick('to rest', 'to eat', 'to play')} {c.spot}, and {f} stopped too.",
            c.pick(f"But {h} did not stop.", f"But {h} went on, step by step."),
            c.pick(f"When {f} looked up, it was too late.", f"{f} got up and ran, but it was too late."),
            f"{h} {c.pick('had won', 'won the race')}!",
        ],
    )
    end = [
        c.pick(f"{a} gave {h} the {t}.", f"So the {t} went to {h}."),
        c.pick(f"{h} was {c.of(HAPPY)}.", f"{f} clapped for {h}.", "Everyone clapped."),
        c.pick(
            f"{h.He} never forgot that day {p.at}.",
            f"They all had a picnic {p.at} after that.",
            f"It was the best day that {h} ever had {p.at}.",
        ),
    ]
    return [start, middle, end]


def stuck(c: Cast) -> Paragraphs:
    h, f, t, p, a, animal = c.hero, c.friend, c.take(FLYERS), c.place, c.adult, c.pick("bird", "squirrel", "owl")
    start = [
        _opening(c),
        c.pick(f"{h.He} had {t.a}.", f"{a} had made {h.him} {t.a}.", f"{h.He} loved {h.his} {t}."),
        f"One windy {c.pick('day', 'morning', 'afternoon')}, {h} {c.of(WENT)} to {p} with it.",
        c.pick("Suddenly, the wind blew it away.", f"The wind pulled it up and away from {h}."),
        c.pick("It flew up into a tall tree and got stuck.", "It got stuck in a tree, very high up."),
    ]
    middle = [
        f'"{c.pick("Oh no!", "Come back!", "What can I do now?")}" cried {h}.',
        c.pick(f"{h.He} jumped, but {h.he} was too small.", f"{h.He} threw a stick at it, but it did not come down."),
    ]
    middle += c.pick(
        [
            f'"{c.pick("I can help", "Let me try")}," said {h.his} friend {f}.',
            c.pick("They shook the tree together.", f"{h} stood on a box, and {f} held the box."),
            c.pick("One, two, three! Down it came.", "At last, it fell to the ground."),
        ],
        [
            c.pick(f"High up in the tree sat {with_article(animal)}.", f"Then {with_article(animal)} came to look."),
            f'"Please help me," {h} {c.pick("called", "said")}.',
            f"The {animal} {c.pick('pulled at it', 'pushed it')} until it {c.pick('came', 'fell')} down.",
        ],
        [
            f"So {h.he} {c.of(('ran', 'went'))} to get {a}.",
            c.pick(f"{a} had a long ladder.", f"{a} came with a long stick."),
            f'"{c.pick("Here we go", "Now hold on")}!" said {a}, and {c.pick("got it down", "reached up to get it")}.',
        ],
        [
            c.pick(f"{h} sat down {c.spot} and waited.", f"{h} did not know what to do and sat down."),
            c.pick("Then the wind blew again, very hard.", "Then a big wind came."),
            f"It blew the {t.noun} {c.pick('down to the ground', f'right back to {h}')}!",
        ],
    )
    end = [
        c.pick(f'"{c.pick("Thank you", "Hooray")}!" said {h}.', f"{h} was {c.of(HAPPY)}.", f"{h} laughed."),
        c.pick(
            f"{h.He} held on to the {t} and did not let the wind {p.at} take it again.",
            f"After that, {h.he} held the {t} very tight when it was windy {p.at}.",
            f"{h.He} took the {t} home from {p} and told the story to everyone.",
        ),
    ]
    return [start, middle, end]


def night(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(LIGHTS), c.place, c.adult
    other = c.pick(a, f)
    start = [
        _opening(c),
        c.pick(
            f"{c.day()}, {h} and {other} went to sleep in a tent {p.at}.", f"{h} and {other} put up a tent {p.at}."
        ),
        c.pick(f"{h} took {t.a} along.", f"{h} had {t.a} for the night.", f"{other} gave {h} {t.a}."),
        c.pick("When the sun went down, it was very dark.", "Soon the moon came up and the stars came out."),
    ]
    sound, maker = c.pick(
        ("Hoo, hoo", "It was only an owl in a tree."),
        ("Croak, croak", "It was only a fat green frog."),
        ("Tap, tap, tap", "It was only a branch that moved in the wind."),
        ("Rustle, rustle", "It was only a hedgehog looking for food."),
        ("Splash, splash", "It was only a duck in the water.")
        if p.name in ("the lake", "the river", "the pond", "the beach")
        else ("Crunch, crunch", "It was only a goat eating grass."),
    )
    middle = [
        c.pick(f"Then {h} heard a sound.", f"{h} could not sleep."),
        f'"{sound}," went something {c.pick("outside", "in the dark", "in the night")}.',
        c.pick(f"{h} hid under the blanket.", f"{h.His} heart beat fast.", f"{h} was afraid."),
        f'"{c.pick("Is it a monster", "What is that", "Who is there")}?" {h.he} whispered.',
        f'"{c.pick("We can look together", "There is only one way to find out")}," said {other}.',
        c.pick(f"So {h} took the {t.noun} and looked outside.", f"With the {t.noun}, {h} looked out of the tent."),
        maker,
    ]
    end = [
        c.pick(f"{h} laughed and was not afraid anymore.", f"{h} and {other} laughed and laughed."),
        c.pick(f"The {t} stayed on until {h} fell asleep.", f"{h} put the {t} down and went to sleep."),
        c.pick(
            f"In the morning, the sun was over {p}, and {h} felt very brave.",
            f"After that, {h} loved the nights {p.at}.",
        ),
    ]
    return [start, middle, end]


def treasure(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(TREASURES), c.place, c.adult
    start = [
        _opening(c),
        f"{c.day()}, {h.he} found an old map {c.pick('in a book', 'under the bed', 'in a drawer')}.",
        c.pick(f"It showed the way to {t.a}, hidden {p.at}.", f"The map said that {t.a} was hidden {p.at}."),
        c.pick(
            f'"Let us find it!" {h} said to {h.his} friend {f}.',
            f"{h} ran to {h.his} friend {f}, and they looked at the map.",
        ),
    ]
    steps = c.pick("five", "ten", "seven", "six", "nine", "twelve")
    middle = [
        c.pick(f"They {c.of(WENT)} to {p}.", "They took a spade and went there."),
        f'"{steps.capitalize()} steps from here," {c.pick("said", "read")} {f}.',
        f"They looked {c.other_spot}, but {c.pick('there was nothing', 'found only stones', 'saw only leaves')}.",
    ]
    middle += c.pick(
        [
            f'"{c.pick("I am tired", "It is not here", "I want to go home")}," said {f}.',
            f'"{c.pick("One more try", "Let us not give up")}," said {h}.',
            f"So they looked {c.spot} too.",
        ],
        [
            c.pick(f"Then {h} turned the map around.", f"Then {f} looked at the map again."),
            c.pick(f'"It was upside down!" laughed {c.pick(h, f)}.', "They had gone the wrong way!"),
            f"They took {steps} steps back and looked {c.spot}.",
        ],
        [
            f"Just then, {with_article(c.animal)} {c.pick('came by', 'ran past them')}.",
            c.pick("It looked at them and went on.", "It wanted to show them something."),
            f"They followed the {c.animal}, and it stopped {c.spot}.",
        ],
    )
    end = [
        c.pick(f"And there was the {t}!", f"There, under some sand, was the {t}!", f"Under a flat stone was the {t}!"),
        c.pick(
            f'"I put it there for you," said {a}, who had {c.pick("made the map", "watched them")}.',
            f'"{c.pick("We did it", "We found it", "Hooray")}!" said {f}.',
        ),
        c.pick(
            f"{h} and {f} had never had so much fun {p.at}.",
            f"{h} took it home from {p} and kept it near the bed.",
            f"When they went home from {p}, {h} was {c.of(HAPPY)}.",
        ),
    ]
    return [start, middle, end]


def gift(c: Cast) -> Paragraphs:
    h, f, t, p, a = c.hero, c.friend, c.take(GIFTS), c.place, c.adult
    start = [
        _opening(c),
        c.pick(f"It was the birthday of {h.his} friend {f}.", f"{h.His} best friend {f} had a birthday."),
        c.pick(f"There was a party {p.at}.", f"All the friends were going to meet {p.at}."),
        c.pick(f"{h} {c.of(('made', 'bought', 'chose'))} {t.a} for {f}.", f'"I will give {f} {t.a}," said {h}.'),
        c.pick(f"{a} put it in a paper bag.", f"{a} helped {h.him} to wrap it in paper."),
    ]
    middle = c.pick(
        [
            c.pick("On the way, a strong wind came.", "On the way, the wind began to blow."),
            c.pick("It blew the gift away!", f"It took the gift away from {h}!"),
            f"{h} ran after it {c.pick('over the grass', 'down the road', f'as fast as {h.he} could')}.",
            f"At last {h.he} caught it {c.spot}.",
        ],
        [
            c.pick(f"On the way, {h} fell in the mud.", f"On the way, {h} dropped the gift in the mud."),
            c.pick("The paper was dirty and wet.", "Now the paper was all brown."),
            c.pick(f"{h} wanted to go back home.", f"{h} was {c.of(SAD)}."),
            f'"{c.pick("It is only paper", "The gift inside is still clean")}," said {a}. "{f} will love it."',
        ],
        [
            c.pick(
                f"On the way, {h} saw {with_article(c.animal)} in a net.",
                f"On the way, {h} met {with_article(c.animal)}.",
            ),
            c.pick("It needed help.", "It could not get home."),
            f"{h} helped the {c.animal}, but now {h.he} was late.",
            f'"{c.pick("Will they wait for me", "Is the party over")}?" {h.he} thought, and ran on.',
        ],
    )
    end = [
        c.pick(f"When {h} came to {p}, {f} opened the gift.", f"{f} was waiting {p.at} and opened the gift."),
        f'"{c.pick(t.a.capitalize(), "Oh, " + t.a)}!" said {f}. "{c.pick("I love it", "It is just what I wanted")}!"',
        c.pick(
            f"{h} was {c.of(HAPPY)}, and they ate cake together.",
            f"{f} gave {h} the biggest piece of cake.",
            f"{h} and {f} danced and sang until the party was over.",
        ),
    ]
    return [start, middle, end]


PLOTS: tuple[Callable[[Cast], Paragraphs], ...] = (
    baking,
    broken_toy,
    gift,
    guessing,
    lost_toy,
    night,
    promise,
    race,
    rain,
    scared_animal,
    seed,
    sharing,
    stuck,
    treasure,
)
