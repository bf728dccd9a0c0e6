"""What is said and shown in generated scenes: plain data, one part for training and one held out.

The splits share the keywords, the words that break in (training has more of these), the shapes and what they do, which
a replica can only know by having heard or seen them. They differ in voices (`voices.py`), wordings, and every time,
size, level (`scene_grids.py`) and colour. Extrapolation has the held-out wordings, voices and colours, and amounts
beyond those of training.
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
    TRAIN: (*_INTERRUPTIONS, "please stop", "okay stop", "wait a moment", "no stop", "stop now", "hang on"),
    HELD_OUT: _INTERRUPTIONS,
}
_BACKCHANNELS = ("mm hm", "uh huh", "right", "yeah")
BACKCHANNELS = {TRAIN: (*_BACKCHANNELS, "okay", "i see", "sure", "oh yes"), HELD_OUT: _BACKCHANNELS}
CUE_WORDS = ("go", "now")
OPENINGS = ("okay", "well", "um", "hey", "alright", "yes", "uh", "hello", "good")  # before requests of training
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

# {keyword}, {cue}, … are filled in. A comma is where a `pause` scene pauses.
CARRIERS = {
    "answer": {
        TRAIN: (
            "please say the word {keyword}", "say {keyword}", "can you say {keyword}",
            "could you say {keyword} for me", "i want you to say {keyword}", "repeat after me {keyword}",
            "now say {keyword}", "just say {keyword} please", "tell me the word {keyword}",
            "say the word {keyword} now",
            "i would like to hear {keyword}", "give me the word {keyword}", "the word is {keyword} please say it",
            "try to say {keyword}", "speak the word {keyword}", "your word is {keyword}", "go ahead and say {keyword}",
            "i need you to say {keyword}", "how do you say {keyword}", "would you mind saying {keyword}",
            "hello can you say the word {keyword}", "next word {keyword}",
        ),
        HELD_OUT: ("would you please say {keyword}", "let me hear you say {keyword}", "say {keyword} to me"),
    },
    "pause": {
        TRAIN: (
            "please say the word, {keyword}", "can you say, {keyword}", "i want you to say, {keyword}",
            "could you please say, {keyword}", "now say the word, {keyword}", "repeat after me, {keyword}",
            "tell me the word, {keyword}", "what i want you to say is, {keyword}",
            "i would like to hear, {keyword}", "give me the word, {keyword}", "try to say, {keyword}",
            "speak the word, {keyword}", "your word is, {keyword}", "go ahead and say, {keyword}",
            "i need you to say, {keyword}", "would you mind saying, {keyword}", "my favourite word is, {keyword}",
        ),
        HELD_OUT: (
            "would you please say, {keyword}", "let me hear you say, {keyword}", "the word to say is, {keyword}",
        ),
    },
    "count": {
        TRAIN: (
            "please count to eight", "count from one to eight", "can you count to eight", "start counting please",
            "i want you to count to eight", "count up to eight for me", "could you count to eight",
            "now count to eight please",
            "i need you to count to eight", "count all the way to eight", "go ahead and count to eight",
            "show me how you count to eight", "give me the numbers up to eight", "try counting to eight",
            "say the numbers from one to eight", "would you mind counting to eight", "keep counting up to eight",
        ),
        HELD_OUT: ("would you count to eight", "let me hear you count to eight", "begin to count from one"),
    },
    "timed": {
        TRAIN: (
            "in {delay} seconds say {keyword}", "say {keyword} in {delay} seconds",
            "wait {delay} seconds and say {keyword}", "please say {keyword} in {delay} seconds",
            "after {delay} seconds say {keyword}", "{delay} seconds from now say {keyword}",
            "can you say {keyword} after {delay} seconds", "wait for {delay} seconds then say {keyword}",
            "give me {keyword} in {delay} seconds", "i want to hear {keyword} in {delay} seconds",
            "count {delay} seconds and say {keyword}", "hold on {delay} seconds then say {keyword}",
            "when {delay} seconds are over say {keyword}", "say {keyword} when {delay} seconds are up",
            "could you say {keyword} {delay} seconds from now", "i need {keyword} in {delay} seconds",
            "stay quiet for {delay} seconds then say {keyword}",
        ),
        HELD_OUT: (
            "would you say {keyword} in {delay} seconds", "let {delay} seconds pass then say {keyword}",
            "say the word {keyword} after {delay} seconds",
        ),
    },
    "cue": {
        TRAIN: (
            "say {keyword} when i say {cue}", "when i say {cue} say {keyword}", "please say {keyword} when i say {cue}",
            "as soon as i say {cue} say {keyword}", "wait until i say {cue} and say {keyword}",
            "say the word {keyword} when i say {cue}", "when you hear {cue} say {keyword}",
            "can you say {keyword} when i say {cue}",
            "i want to hear {keyword} when i say {cue}", "at the word {cue} say {keyword}",
            "{keyword} is what you say when i say {cue}", "the moment i say {cue} say {keyword}",
            "if you hear {cue} say {keyword}", "answer {keyword} when i say {cue}",
            "wait for the word {cue} then say {keyword}", "could you say {keyword} when you hear me say {cue}",
            "give me {keyword} when i say {cue}",
        ),
        HELD_OUT: (
            "would you say {keyword} when i say {cue}", "say {keyword} as soon as you hear {cue}",
            "once i say {cue} please say {keyword}",
        ),
    },
    "visual": {
        TRAIN: (
            "say {keyword} when you see the {shape}", "when you see a {shape} say {keyword}",
            "please say {keyword} when the {shape} appears", "as soon as you see the {shape} say {keyword}",
            "say {keyword} when there is a {shape}", "watch for the {shape} and say {keyword}",
            "can you say {keyword} when you see a {shape}", "when the {shape} comes say {keyword}",
            "i want to hear {keyword} when you see a {shape}", "if a {shape} appears say {keyword}",
            "wait for the {shape} then say {keyword}", "could you say {keyword} when the {shape} comes",
            "the moment you see a {shape} say {keyword}", "say {keyword} when a {shape} comes into view",
            "keep watching and say {keyword} at the {shape}", "give me {keyword} when the {shape} is there",
            "as soon as there is a {shape} say {keyword}",
        ),
        HELD_OUT: (
            "would you say {keyword} when you see the {shape}", "say {keyword} once the {shape} shows up",
            "look out for a {shape} and say {keyword}",
        ),
    },
    "visual_stop": {
        TRAIN: (
            "say {keyword} when you see the {shape} and {second} when it is gone",
            "when the {shape} comes say {keyword} and when it goes say {second}",
            "please say {keyword} when the {shape} appears and {second} when it goes away",
            "{keyword} when there is a {shape} and {second} when it is gone",
            "say {keyword} as soon as you see a {shape} and {second} when it leaves",
            "when you see a {shape} say {keyword} and {second} when it is gone",
            "watch the {shape} say {keyword} when it comes and {second} when it goes",
            "can you say {keyword} when the {shape} is there and {second} when it is gone",
            "if you see the {shape} say {keyword} and if it goes say {second}",
            "wait for the {shape} then say {keyword} and {second} when it is gone",
            "say {keyword} when a {shape} comes and {second} when it goes",
            "the {shape} comes say {keyword} the {shape} goes say {second}",
            "give me {keyword} when you see a {shape} and {second} when it is gone",
            "could you say {keyword} when the {shape} comes and {second} when it is gone",
            "as soon as the {shape} is there say {keyword} and {second} when it is gone",
            "i want to hear {keyword} when the {shape} comes and {second} when it goes",
        ),
        HELD_OUT: (
            "would you say {keyword} when the {shape} comes and {second} when it leaves",
            "say {keyword} once you see the {shape} and {second} once it is gone",
            "look out for a {shape} say {keyword} when it is there and {second} when it goes",
        ),
    },
    "repetition": {
        TRAIN: (
            "count how often the {shape} {action}", "count each time the {shape} {action}",
            "please count when the {shape} {action}", "count aloud when the {shape} {action}",
            "can you count how often the {shape} {action}", "count along when the {shape} {action}",
            "each time the {shape} {action} count", "count every time the {shape} {action}",
            "count as the {shape} {action}", "keep count when the {shape} {action}",
            "i want you to count when the {shape} {action}", "could you count each time the {shape} {action}",
            "whenever the {shape} {action} count", "start counting when the {shape} {action}",
            "say a number each time the {shape} {action}", "watch how often the {shape} {action} and count",
            "count out loud as the {shape} {action}",
        ),
        HELD_OUT: (
            "would you count how often the {shape} {action}", "let me hear you count when the {shape} {action}",
            "as the {shape} {action} count along",
        ),
    },
    "count_seen": {
        TRAIN: (
            "how many things do you see", "how many things is that", "count the things in the picture",
            "tell me how many there are", "how many can you see", "please tell me how many you see",
            "what number of things is there", "say how many things there are", "how many do you see in the picture",
            "how many things can you see", "give me the number of things you see", "how many things are there",
            "count what you see", "can you tell me how many there are", "i want to know how many you see",
            "what number of things do you see", "say how many you can see", "how many of them are there",
            "do you see how many there are",
        ),
        HELD_OUT: ("would you tell me how many you see", "how many things are in the picture", "so how many are there"),
    },
    "quiet_until_seen": {
        TRAIN: (
            "tell me what comes into the picture", "what do you see tell me when it comes",
            "say what appears", "tell me what appears in the picture", "watch and tell me what comes",
            "please say what comes into sight", "when something comes tell me what it is",
            "can you tell me what comes", "as soon as you see something say what it is",
            "wait until something comes and tell me what", "name the thing that appears",
            "i want to know what comes into the picture", "keep watching and say what you see",
            "tell me when you see something and what", "could you tell me what appears",
            "say the name of what comes", "when you see something say what it is", "look and tell me what appears",
        ),
        HELD_OUT: (
            "would you tell me what shows up", "let me know what comes into the picture",
            "once something comes say what it is",
        ),
    },
    "repeat": {
        TRAIN: (
            "repeat every word i say", "say every word after me", "repeat each word right after me",
            "please repeat all my words", "say each word that i say", "say after me word by word",
            "can you repeat each word i say", "repeat all i say from now on",
            "say again each word that i say", "copy every word i say", "i want you to repeat each word",
            "could you repeat my words one by one", "after each word i say say it too",
            "repeat what i say word by word", "keep repeating my words", "be my echo and repeat each word",
            "whatever i say say it again",
        ),
        HELD_OUT: ("would you repeat every word", "say all my words after me", "let me hear each word from you"),
    },
    "translate": {
        TRAIN: (
            "translate each number for me", "put my numbers into english", "say every number in english",
            "please translate my numbers", "translate all the numbers i say", "say in english what i count",
            "can you translate each number", "give me every number in english",
            "i want each number in english", "tell me in english which numbers i say", "what i count say it in english",
            "could you translate every number", "i count and you say it in english", "speak my numbers in english",
            "english please for each number i say", "keep translating my numbers", "make my numbers english",
        ),
        HELD_OUT: (
            "would you translate my numbers", "let me hear the numbers in english", "turn each number into english",
        ),
    },
    "story": {
        TRAIN: (
            "let me tell you a story, {story}", "listen to my story, {story}", "i must tell you this, {story}",
            "you will not believe this, {story}", "guess what happened, {story}", "listen to this, {story}",
            "about my day, {story}", "here is what happened, {story}",
            "this is what i did today, {story}", "i have a story for you, {story}", "you should hear this, {story}",
            "it was like this, {story}", "let me tell you about today, {story}", "well this is my story, {story}",
            "last night it was like this, {story}", "so this happened to me, {story}",
            "do you know what happened, {story}",
        ),
        HELD_OUT: ("i want to tell you a story, {story}", "hear what happened, {story}", "now listen to me, {story}"),
    },
    "silence": {
        TRAIN: (
            "i went to the market this morning", "the weather is nice today", "my brother lives near the river",
            "we had coffee in the garden", "she is reading a book by the window", "it was a very long summer",
            "they built a bridge last year", "i left my keys in the kitchen", "the doctor was late again",
            "my father cooks soup on sundays", "the river is very high today", "we are painting the kitchen",
            "our dog likes the garden", "i have a new coat for the winter", "he tells me the same story every day",
            "i do not know what it is", "there is tea in the kitchen", "you know what my brother is like",
            "i could not sleep last night", "they asked us to come again", "she wanted to know the way",
            "please do not mind the noise", "that is what he told me",
        ),
        HELD_OUT: (
            "my sister plays music at home", "the train was full of people", "he painted the old door yellow",
            "there was snow on the hills",
        ),
    },
}  # fmt: skip

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
    ),
    HELD_OUT: (
        "our neighbour has a new car", "the shop closes at six", "i forgot to water the plants", "it smells like rain",
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
    ),
    HELD_OUT: (
        ((USER, "i'm talking on the phone"), (OTHER, "oh i see")),
        ((OTHER, "is dinner ready"), (USER, "almost")),
        ((OTHER, "who is there"), (USER, "nobody you know")),
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
    ),
    HELD_OUT: (
        "the buses stop here every hour", "more news after the music", "a storm moved over the coast",
        "voters have to wait until sunday",
    ),
}  # fmt: skip

# What the user tells, piece by piece, in `model_backchannel` scenes.
STORIES = {
    TRAIN: (
        "i missed the first bus", "then it began to rain", "my phone was at home", "a man gave me a lift",
        "we walked to the station", "nobody was there", "i lost one shoe", "the dog ran after us", "it was closed",
        "i forgot where i was", "the train stood still", "we ate our bread in the rain", "my brother fell asleep",
        "the key broke in the door", "a bird flew into the room", "they sold all the tickets", "i took the wrong coat",
        "she knew my name", "then the phone rang",
    ),
    HELD_OUT: ("the lights went out", "somebody knocked at the door", "it was my old teacher", "we laughed so much"),
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
