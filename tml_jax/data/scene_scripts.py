"""What is said and shown in generated scenes: plain data, one part for training and one held out.

The splits share the keywords, the words that break in (training has more of these), the shapes and what they do, which
a replica can only know by having heard or seen them. They differ in voices (`voices.py`), wordings (of requests in
`scene_requests.py`), and every time, size, level (`scene_grids.py`) and colour. Extrapolation has the held-out
wordings, voices and colours, and amounts beyond those of training.
"""

from tml_jax.data.record import OTHER, USER
from tml_jax.data.scene_grids import EXTRAPOLATION, HELD_OUT, TRAIN

SPLITS = (TRAIN, HELD_OUT, EXTRAPOLATION)

KEYWORDS = (
    "tiger", "banana", "window", "garden", "music", "river", "doctor", "pencil", "coffee", "elephant", "kitchen",
    "bridge", "yellow", "summer",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_INTERRUPTIONS = ("stop", "wait", "hold on", "stop please", "that's enough")
INTERRUPTIONS = {
    # "wait" sounds much like "right", which must not stop the model, and so comes often.
    TRAIN: (
        *_INTERRUPTIONS, *_INTERRUPTIONS, "wait", "wait", "wait", "wait", "wait",
        "please stop", "okay stop", "wait a moment", "no stop",
        "stop now", "hang on", "please wait", "no wait", "wait wait", "hold it", "stop it", "stop there", "enough",
        "that will do", "wait please", "okay wait", "wait a second", "wait now", "just wait",
    ),
    HELD_OUT: _INTERRUPTIONS,
}  # fmt: skip
_BACKCHANNELS = ("mm hm", "uh huh", "right", "yeah")
BACKCHANNELS = {
    TRAIN: (*_BACKCHANNELS, *_BACKCHANNELS, "right", "okay", "i see", "sure", "oh yes", "oh right", "right right"),
    HELD_OUT: _BACKCHANNELS,
}
CUE_WORDS = ("go", "now")
DELAYS = {"two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0}  # seconds
SHAPES = ("ball", "box", "cross", "ring")
GONE = "gone"  # what the model says of an object that is gone, unless asked for a keyword
LISTENING = "mm hm"  # how the model shows that it listens
TRANSLATIONS = {"uno": "one", "dos": "two", "tres": "three", "cuatro": "four", "cinco": "five"}

# How many there are of what the splits share, by split.
_NEAR_AMOUNTS = {
    "delays": ("two", "three", "four"), "repetitions": (2, 3, 4, 5), "objects": (1, 2, 3, 4), "repeated": (3, 4),
    "beats": (1, 2),
}  # fmt: skip
_FAR_AMOUNTS = {
    "delays": ("five", "six", "seven"), "repetitions": (6, 7, 8), "objects": (5, 6), "repeated": (5, 6), "beats": (3,),
}  # fmt: skip
AMOUNTS = {TRAIN: _NEAR_AMOUNTS, HELD_OUT: _NEAR_AMOUNTS, EXTRAPOLATION: _FAR_AMOUNTS}

# What the user goes on talking about in `cue` scenes, before and after the cue word.
FILLERS = {
    TRAIN: (
        "i am looking for my keys", "the bus was late today", "we should buy some bread", "my shoes are still wet",
        "it is getting dark outside", "the children are at school", "i need to call my mother", "the cat is asleep",
        "there is a letter on the table", "he is coming back tomorrow",
        "the kettle is on the stove", "my neighbour plays the piano", "we had soup for lunch",
        "the door does not close",
        "i wrote her a long letter", "the milk is almost gone", "they moved to the city", "his coat is too small",
        "we could use another lamp", "the baker is closed on sunday", "i read about it in the paper",
        "our neighbour has a new car", "the shop closes at six", "i forgot to water the plants", "it smells like rain",
        "we sat by the window all evening", "my brother is coming for dinner", "that lamp has been on all night",
        "i think the soup needs salt", "her train leaves in an hour", "this chair is not very good",
        "the boys are out in the yard", "i have not read it yet", "it took us the whole day", "his phone is off",
    ),
    HELD_OUT: (
        "my bike has a flat tyre", "they painted the hallway last week", "lunch was better than i thought",
        "somebody parked in front of the gate",
    ),
}  # fmt: skip

# What the user and somebody else say to each other, which is none of the model's business.
SIDE_TALK = {
    TRAIN: (
        ((USER, "no i'm on the phone"), (OTHER, "okay sorry")),
        ((OTHER, "are you coming"), (USER, "in a minute")),
        ((USER, "come in please"), (OTHER, "thank you")),
        ((OTHER, "where are my shoes"), (USER, "under the table")),
        ((OTHER, "have you seen the cat"), (USER, "no i have not")),
        ((USER, "the keys are on the shelf"), (OTHER, "found them")),
        ((OTHER, "do you want some tea"), (USER, "yes please")),
        ((USER, "close the door"), (OTHER, "all right")),
        ((USER, "put it on the table"), (OTHER, "this one")),
        ((OTHER, "did you call her"), (USER, "not yet")),
        ((USER, "that is for you"), (OTHER, "how nice")),
        ((OTHER, "what time is it"), (USER, "almost noon")),
        ((OTHER, "can i open the window"), (USER, "of course")),
        ((USER, "i will call you back"), (OTHER, "no hurry")),
        ((OTHER, "how much was the bread"), (USER, "not much")),
        ((USER, "tell her i am busy"), (OTHER, "i will")),
        ((OTHER, "do you know where it is"), (USER, "over there")),
        ((USER, "i'm talking on the phone"), (OTHER, "oh i see")),
        ((OTHER, "is dinner ready"), (USER, "almost")),
        ((OTHER, "who is there"), (USER, "nobody you know")),
        ((USER, "wait a minute i am talking"), (OTHER, "okay okay")),
        ((OTHER, "what are you doing"), (USER, "nothing much")),
        ((OTHER, "is it raining"), (USER, "a little")),
        ((USER, "leave it open"), (OTHER, "fine")),
        ((USER, "the coffee is ready"), (OTHER, "coming")),
        ((OTHER, "where do you want this"), (USER, "in the kitchen")),
        ((USER, "that was quick"), (OTHER, "i know")),
        ((OTHER, "did you feed the dog"), (USER, "yes this morning")),
        ((USER, "not so loud please"), (OTHER, "sorry")),
        ((OTHER, "the bus is here"), (USER, "go ahead")),
        ((USER, "ask your mother"), (OTHER, "she said no")),
        ((OTHER, "how was work"), (USER, "long")),
        ((USER, "it is in my bag"), (OTHER, "got it")),
        ((OTHER, "shall we eat"), (USER, "later")),
    ),
    HELD_OUT: (
        ((USER, "give me a second i'm in a call"), (OTHER, "sure thing")),
        ((OTHER, "has the post come yet"), (USER, "not so far")),
        ((OTHER, "which one is yours"), (USER, "the blue one")),
        ((USER, "mind the step"), (OTHER, "oops")),
    ),
}  # fmt: skip

# What a television says. The words at which the model stops occur here, too.
TELEVISION = {
    TRAIN: (
        "the trains will stop at the border tonight", "and now the weather for the north",
        "prices went up again in may", "they had to wait for the rain to end", "our next guest comes from the islands",
        "the game begins at eight", "the minister spoke to the workers", "the road is closed until monday",
        "two people won the first prize",
        "it will be cold and windy tonight", "the team lost again on sunday", "please stay with us for the news",
        "the museum opens its doors again", "do you know what your house is worth", "doctors say that walking helps",
        "we wait for word from the capital", "nothing could stop the winners", "the price of bread is what it was",
        "call us and tell us what you think",
        "the buses stop here every hour", "more news after the music", "a storm moved over the coast",
        "voters have to wait until sunday",
        "the mayor opened a new bridge today", "rain is on its way from the west", "the band plays its last song",
        "the plane had to turn around", "and here are the numbers of the week", "the doctor told her to stop smoking",
        "a wonderful evening to all of you", "the yellow team is in front again", "go and see it for yourself",
        "we will be right back after this", "a fire broke out in the kitchen", "this summer will be a hot one",
    ),
    HELD_OUT: (
        "fans sang until the final whistle", "a ship was stopped off the coast", "tomorrow brings sun and light winds",
        "shoppers had to wait in line for hours",
    ),
}  # fmt: skip

# What the user tells, piece by piece, in `model_backchannel` scenes.
STORIES = {
    TRAIN: (
        "i missed the first bus", "then it began to rain", "my phone was at home", "a man gave me a lift",
        "we walked to the station", "nobody was there", "i lost one shoe", "the dog ran after us", "it was closed",
        "i forgot where i was", "the train stood still", "we ate our bread in the rain", "my brother fell asleep",
        "the key broke in the door", "a bird flew into the room", "they sold all the tickets", "i took the wrong coat",
        "she knew my name", "then the phone rang", "the car would not start", "he sang in the street",
        "i found a letter", "the bread was burnt", "we ran to the bridge", "a child laughed at us",
        "the window was open", "i could not find my hat", "snow fell on the road", "she lost her ring",
        "it was past midnight", "we heard a noise", "my aunt came to see us", "the shop had no milk",
        "we got lost in the city", "he gave it back to me", "i slept on the floor", "the soup was cold",
        "the lights went out", "somebody knocked at the door", "it was my old teacher", "we laughed so much",
        "the boat began to leak", "i called a taxi", "there were no seats left", "my coat was full of snow",
        "he ate my sandwich", "she laughed and went home", "we saw a big fire", "the bell rang twice",
        "i had lost my ticket", "the bridge was closed",
    ),
    HELD_OUT: (
        "the lift got stuck", "a stranger paid for our lunch", "my glasses fell in the lake", "everyone began to clap",
    ),
}  # fmt: skip

# Ordinary words for transcription and for plain text.
ADJECTIVES = ("old", "small", "green", "quiet", "happy", "cold", "heavy", "young", "bright", "slow", "empty", "clean")
NOUNS = (
    "dog", "house", "teacher", "road", "apple", "train", "letter", "boat", "table", "flower", "horse", "city", "lamp",
    "child", "farmer", "door", "mountain", "shop", "bird", "island",
)  # fmt: skip
VERBS = (
    "found", "painted", "carried", "followed", "saw", "liked", "moved", "cleaned", "watched", "opened", "sold", "took",
)  # fmt: skip
PREPOSITIONS = ("near", "behind", "under", "beside", "above", "before")
TIMES = ("today", "this morning", "last week", "in the evening", "at night", "again")

COLOURS = {
    TRAIN: {
        "red": (225, 40, 40), "green": (50, 200, 60), "blue": (60, 90, 235), "white": (240, 240, 240),
        "yellow": (235, 225, 40), "purple": (140, 50, 200),
    },
    HELD_OUT: {"orange": (240, 140, 30), "pink": (240, 120, 190), "cyan": (50, 210, 220)},
}  # fmt: skip


def part_of(split: str) -> str:
    """The part of the scripts that a split takes its wordings and colours from."""
    return TRAIN if split == TRAIN else HELD_OUT
