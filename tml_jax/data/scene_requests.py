"""What users ask for in generated scenes: a few wordings held out, and hundreds of each kind for training.

The wordings of training are composed (`scene_wordings.py`), as people compose them: what is asked for ("count to
eight"), after words that ask for anything ("could you please", "i want you to"); `scene_patterns.py` has more. With no
more than seventeen wordings of each kind, a replica learned these by heart: it knew them nearly always, and others
three times in four. Those held out have other turns of phrase: at least two words would have to be changed, added or
left out to make one of any wording of training.
"""

from tml_jax.data.scene_grids import HELD_OUT, TRAIN
from tml_jax.data.scene_scripts import KEYWORDS

OPENINGS = (
    "okay", "well", "um", "hey", "alright", "yes", "uh", "hello", "good", "listen", "look", "my friend", "here we go",
    "i am ready", "one more thing", "this is important", "very good", "thank you", "excuse me", "by the way",
    "you know", "all right then", "at last", "today", "again", "good morning", "oh", "and", "sorry", "i am back",
    "it is late",
)  # fmt: skip
"""What may come before a request in training."""

# {keyword}, {cue}, … are filled in; for `*` and `+` see `scene_wordings.py`. A comma is where a `pause` scene pauses.
CARRIERS = {
    "answer": {
        TRAIN: (
            "*say the word {keyword}+", "*say {keyword}+", "*repeat after me {keyword}", "*tell me the word {keyword}+",
            "*give me the word {keyword}+", "*speak the word {keyword}", "*answer with the word {keyword}",
            "*say just {keyword}", "*say this word {keyword}", "*pronounce {keyword}+", "*tell me {keyword}+",
            "*say nothing but {keyword}", "*say the word that i say {keyword}", "*repeat the word {keyword}+",
            "i would like to hear {keyword}", "i want to hear the word {keyword}",
            "the word is {keyword} please say it", "your word is {keyword}", "how do you say {keyword}",
            "would you mind saying {keyword}", "next word {keyword}", "the next word is {keyword}",
            "what i want to hear is {keyword}", "{keyword} is the word *say it", "can i hear {keyword}",
            "can i hear you say {keyword}", "do you know the word {keyword} say it", "my word for you is {keyword}",
            "say after me {keyword}",
            "let me hear you say {keyword}",
            "let me hear {keyword}",
            "it's your turn say {keyword}", "let's hear the word {keyword}", "i'd like you to say {keyword}",
            "i'm waiting for the word {keyword}", "come on {keyword}", "now i want {keyword}",
            "i need the word {keyword} from you", "please {keyword}", "what i need is {keyword} please say it",
            "{keyword} please", "the word {keyword} if you please", "{keyword} now you", "{keyword} can you say that",
            "{keyword} *repeat that", "{keyword} your turn", "say it with me {keyword}",
            "use your voice and say {keyword}", "we are all waiting for {keyword}", "why not say {keyword}",
            "{keyword} is your word", "the thing to say is {keyword}", "i was hoping for {keyword}",
            "it would make me happy to hear {keyword}", "everybody wants to hear {keyword}", "do say {keyword}",
            "you say {keyword}", "it's time for the word {keyword}", "my wish is to hear {keyword}",
            "i bet you can say {keyword}",
        ),
        HELD_OUT: (
            "i'd love it if you said {keyword}",
            "what about a {keyword} from you",
            "{keyword} would be nice to hear from you",
        ),
    },
    "pause": {
        TRAIN: (
            "*say the word, {keyword}", "*say, {keyword}", "*repeat after me, {keyword}",
            "*tell me the word, {keyword}", "*give me the word, {keyword}", "*speak the word, {keyword}",
            "*repeat the word, {keyword}", "*say this word, {keyword}", "*pronounce, {keyword}", "*tell me, {keyword}",
            "*say just, {keyword}",
            "what i want you to say is, {keyword}", "i would like to hear, {keyword}", "your word is, {keyword}",
            "would you mind saying, {keyword}", "my favourite word is, {keyword}", "the next word is, {keyword}",
            "what i want to hear is, {keyword}", "i want to hear the word, {keyword}", "the word for you is, {keyword}",
            "my word for you is, {keyword}", "the word that i like is, {keyword}", "how do you say, {keyword}",
            *(
                f"{start} {verb}, {{keyword}}"
                for start in (
                    "i am waiting for you to", "it is your turn to", "can i hear you", "i want to hear you",
                    "it would help if you", "now is the time to", "she wants to hear you", "we all want to hear you",
                    "they have not heard you", "my mother would like to hear you", "i never heard you",
                    "it is nice to hear you", "we are here to hear you", "i have yet to hear you",
                )
                for verb in ("say", "repeat", "tell me", "speak the word")
            ),
            *(
                f"the {which} {what} is, {{keyword}}"
                for which in ("first", "right", "best", "only", "last", "new")
                for what in ("word", "answer", "word for today", "thing i want to hear")
            ),
            "let me hear you say, {keyword}",
            "the word to say is, {keyword}",
            "it's your turn to say, {keyword}", "let's hear the word, {keyword}", "i'd like you to say, {keyword}",
            "i'm waiting for the word, {keyword}", "i'd like to hear, {keyword}", "what i need is, {keyword}",
            "the thing to say is, {keyword}", "i was hoping for, {keyword}",
            "it would make me happy to hear, {keyword}", "everybody wants to hear, {keyword}", "now you say, {keyword}",
            "today i would like, {keyword}", "well the word is, {keyword}", "it begins like this, {keyword}",
            "why not say, {keyword}", "my wish is to hear, {keyword}", "i bet you can say, {keyword}",
            "let me think say, {keyword}", "what was it again oh yes say, {keyword}", "i think i want, {keyword}",
            "so what i wanted is, {keyword}", "the word that we need now is, {keyword}", "come on say, {keyword}",
            "the next one is, {keyword}", "you know which one i mean it is, {keyword}",
        ),
        HELD_OUT: (
            "i'd love it if you said, {keyword}",
            "the one i was thinking of is, {keyword}",
            "this time it has got to be, {keyword}",
        ),
    },
    "count": {
        TRAIN: (
            "*count to eight+", "*count from one to eight+", "*start counting+", "*count up to eight+",
            "*count all the way to eight+", "*show me how you count to eight", "*give me the numbers up to eight+",
            "*say the numbers from one to eight+", "*say the numbers up to eight", "*count aloud to eight+",
            "*start to count+", "*start with one and count to eight", "*count from one+", "*do the counting+",
            "*say one two three and so on", "*go from one to eight+", "*count the numbers up to eight",
            "*keep counting up to eight", "*count slowly to eight", "*read the numbers from one to eight",
            "i want to hear the numbers up to eight", "would you mind counting to eight", "try counting to eight",
            "how do you count to eight", "can i hear you count to eight", "i would like to hear you count",
            "time for counting to eight", "counting please", "the numbers from one to eight please",
            "all numbers up to eight please",
            "let me hear you count to eight",
            "let me hear you count",
            "*begin to count from one",
            "i'd like you to count to eight", "it's time to count to eight", "let's count to eight",
            "one to eight please", "can i have the numbers up to eight", "we want to hear you count",
            "everybody wants to hear you count", "why not count to eight", "i'm waiting for you to count",
            "now the numbers please", "numbers from one to eight please", "tell me the numbers up to eight",
            "go through the numbers from one", "it would make me happy to hear you count",
            "i bet you can count to eight", "you count to eight", "how far can you count", "the counting is yours",
            "please number from one to eight", "do count", "my wish is to hear you count to eight",
        ),
        HELD_OUT: (
            "i'd love it if you did one to eight",
            "let's have all the numbers as far as eight",
            "run through the numbers up to eight",
        ),
    },
    "timed": {
        TRAIN: (
            "in {delay} seconds *say {keyword}", "*say {keyword} in {delay} seconds+",
            "*wait {delay} seconds and say {keyword}", "after {delay} seconds *say {keyword}",
            "{delay} seconds from now *say {keyword}", "*say {keyword} after {delay} seconds+",
            "*wait for {delay} seconds then say {keyword}", "*give me {keyword} in {delay} seconds",
            "*count {delay} seconds and say {keyword}", "*hold on {delay} seconds then say {keyword}",
            "when {delay} seconds are over *say {keyword}", "*say {keyword} when {delay} seconds are up",
            "*say {keyword} {delay} seconds from now", "*stay quiet for {delay} seconds then say {keyword}",
            "*say the word {keyword} in {delay} seconds", "*tell me {keyword} in {delay} seconds",
            "*wait {delay} seconds before you say {keyword}", "*do nothing for {delay} seconds and say {keyword}",
            "i want to hear {keyword} in {delay} seconds", "i need {keyword} in {delay} seconds",
            "{keyword} in {delay} seconds please", "i would like to hear {keyword} after {delay} seconds",
            "*let {delay} seconds pass then say {keyword}",
            "let me hear {keyword} in {delay} seconds",
            "i'd like to hear {keyword} in {delay} seconds", "it's {keyword} in {delay} seconds",
            "in {delay} seconds it's time for {keyword}", "in {delay} seconds i want {keyword}",
            "in {delay} seconds your word is {keyword}", "give it {delay} seconds and say {keyword}",
            "stop for {delay} seconds then {keyword}", "not now but in {delay} seconds say {keyword}",
            "{delay} seconds of silence and then {keyword}", "{delay} seconds and then {keyword}",
            "{keyword} but in {delay} seconds", "{keyword} after {delay} seconds please",
            "i need to wait {delay} seconds for {keyword}", "sleep {delay} seconds and say {keyword}",
            "let's wait {delay} seconds before {keyword}", "when it has been {delay} seconds say {keyword}",
            "say {keyword} but wait {delay} seconds first", "first wait {delay} seconds and next say {keyword}",
            "rest {delay} seconds then it's {keyword}", "be quiet {delay} seconds and {keyword} comes next",
            "can i hear {keyword} in {delay} seconds",
        ),
        HELD_OUT: (
            "once {delay} seconds have gone by i'd like {keyword}",
            "{keyword} please but only {delay} seconds later",
            "take {delay} seconds off before saying {keyword}",
        ),
    },
    "cue": {
        TRAIN: (
            "*say {keyword} when i say {cue}", "when i say {cue} *say {keyword}",
            "as soon as i say {cue} *say {keyword}", "*wait until i say {cue} and say {keyword}",
            "*say the word {keyword} when i say {cue}", "when you hear {cue} *say {keyword}",
            "at the word {cue} *say {keyword}", "the moment i say {cue} *say {keyword}",
            "if you hear {cue} *say {keyword}", "*answer {keyword} when i say {cue}",
            "*wait for the word {cue} then say {keyword}", "*say {keyword} when you hear me say {cue}",
            "*give me {keyword} when i say {cue}", "*say {keyword} after i say {cue}",
            "*keep quiet until i say {cue} and say {keyword}", "i want to hear {keyword} when i say {cue}",
            "{keyword} is what you say when i say {cue}", "i say {cue} and you say {keyword}",
            "{keyword} when i say {cue} please", "when it is time i say {cue} and you say {keyword}",
            "*say {keyword} as soon as you hear {cue}",
            "once i say {cue} *say {keyword}",
            "i'd like to hear {keyword} when i say {cue}", "it's {keyword} when i say {cue}",
            "{cue} is your sign to say {keyword}", "if i say {cue} i want {keyword}", "on {cue} say {keyword}",
            "at {cue} say {keyword}", "at {cue} i want to hear {keyword}", "when {cue} comes say {keyword}",
            "let {keyword} come when i say {cue}", "not before i say {cue} say {keyword}",
            "keep {keyword} until i say {cue}", "hold {keyword} until you hear {cue}",
            "i will say {cue} and that is when you say {keyword}", "my word is {cue} yours is {keyword}",
            "to {cue} you answer {keyword}", "listen for {cue} and say {keyword}",
            "stay quiet and at {cue} say {keyword}", "first i say {cue} next you say {keyword}",
            "once it's {cue} say {keyword}", "after {cue} it is {keyword}",
        ),
        HELD_OUT: (
            "{cue} means that you say {keyword}",
            "the signal is {cue} and your word is {keyword}",
            "hearing {cue} from me you answer with {keyword}",
        ),
    },
    "visual": {
        TRAIN: (
            "*say {keyword} when you see the {shape}", "when you see a {shape} *say {keyword}",
            "*say {keyword} when the {shape} appears", "as soon as you see the {shape} *say {keyword}",
            "*say {keyword} when there is a {shape}", "*watch for the {shape} and say {keyword}",
            "when the {shape} comes *say {keyword}", "if a {shape} appears *say {keyword}",
            "*wait for the {shape} then say {keyword}", "the moment you see a {shape} *say {keyword}",
            "*say {keyword} when a {shape} comes into view", "*keep watching and say {keyword} at the {shape}",
            "*give me {keyword} when the {shape} is there", "as soon as there is a {shape} *say {keyword}",
            "*say the word {keyword} if you see a {shape}", "i want to hear {keyword} when you see a {shape}",
            "a {shape} will come and then you say {keyword}", "{keyword} when you see the {shape} please",
            "*say {keyword} once the {shape} shows up",
            "*look out for a {shape} and say {keyword}",
            "i'd like {keyword} when you see a {shape}", "it's {keyword} when the {shape} comes",
            "at the {shape} say {keyword}", "on seeing the {shape} say {keyword}", "for a {shape} say {keyword}",
            "if there is a {shape} i want {keyword}", "a {shape} is what you wait for then say {keyword}",
            "the {shape} is your sign to say {keyword}", "see a {shape} say {keyword}",
            "no {shape} no word but with it {keyword}", "wait and when the {shape} is there {keyword}",
            "stay quiet until the {shape} comes and say {keyword}", "only the {shape} counts say {keyword} then",
            "find me a {shape} and say {keyword}", "can you say {keyword} as the {shape} comes in",
            "let {keyword} come with the {shape}", "tell me {keyword} when there is a {shape} to see",
            "look for a {shape} when it is there say {keyword}", "once there's a {shape} it's {keyword}",
            "when a {shape} enters say {keyword}",
        ),
        HELD_OUT: (
            "should a {shape} turn up i'd like to hear {keyword}",
            "keep an eye out for a {shape} then call out {keyword}",
            "the first {shape} to come along gets a {keyword}",
        ),
    },
    "visual_stop": {
        TRAIN: (
            "*say {keyword} when you see the {shape} and {second} when it is gone",
            "when the {shape} comes *say {keyword} and when it goes say {second}",
            "*say {keyword} when the {shape} appears and {second} when it goes away",
            "{keyword} when there is a {shape} and {second} when it is gone",
            "*say {keyword} as soon as you see a {shape} and {second} when it leaves",
            "when you see a {shape} *say {keyword} and {second} when it is gone",
            "watch the {shape} *say {keyword} when it comes and {second} when it goes",
            "*say {keyword} when the {shape} is there and {second} when it is gone",
            "if you see the {shape} *say {keyword} and if it goes say {second}",
            "*wait for the {shape} then say {keyword} and {second} when it is gone",
            "*say {keyword} when a {shape} comes and {second} when it goes",
            "the {shape} comes say {keyword} the {shape} goes say {second}",
            "*give me {keyword} when you see a {shape} and {second} when it is gone",
            "as soon as the {shape} is there *say {keyword} and {second} when it is gone",
            "i want to hear {keyword} when the {shape} comes and {second} when it goes",
            "*say {keyword} once you see the {shape} and {second} once it is gone",
            "*look out for a {shape} say {keyword} when it is there and {second} when it goes",
            "i'd like {keyword} when the {shape} comes and {second} when it goes",
            "it's {keyword} at the {shape} and {second} without it",
            "at the {shape} say {keyword} and when it leaves {second}",
            "for a {shape} say {keyword} and once it goes {second}",
            "first {keyword} when there is a {shape} then {second} when there is none",
            "{keyword} for the {shape} coming {second} for it going",
            "see a {shape} say {keyword} see it go say {second}",
            "look for the {shape} say {keyword} then and {second} at its end",
            "once there's a {shape} it's {keyword} once there's none it's {second}",
            "when a {shape} enters say {keyword} when it leaves say {second}",
            "with the {shape} comes {keyword} and after it {second}",
            "tell me {keyword} when the {shape} is there and tell me {second} when it is away",
            "the {shape} is the sign for {keyword} its end is the sign for {second}",
            "find me a {shape} and say {keyword} and when you lose it {second}",
            "wait for a {shape} with {keyword} and for its end with {second}",
        ),
        HELD_OUT: (
            "call out {keyword} for a {shape} that turns up and {second} for one that left",
            "should a {shape} turn up it is {keyword} and after that {second}",
            "the {shape} in the picture means {keyword} the {shape} out of it means {second}",
        ),
    },
    "repetition": {
        TRAIN: (
            "*count how often the {shape} {action}", "*count each time the {shape} {action}",
            "*count when the {shape} {action}", "*count aloud when the {shape} {action}",
            "*count along when the {shape} {action}", "each time the {shape} {action} *count",
            "*count every time the {shape} {action}", "*count as the {shape} {action}",
            "*keep count when the {shape} {action}", "whenever the {shape} {action} *count",
            "*start counting when the {shape} {action}", "*say a number each time the {shape} {action}",
            "*watch how often the {shape} {action} and count", "*count out loud as the {shape} {action}",
            "*count how many times the {shape} {action}", "i want to hear a number when the {shape} {action}",
            "let me hear you count when the {shape} {action}",
            "as the {shape} {action} *count along",
            "i'd like you to count when the {shape} {action}", "it's your job to count when the {shape} {action}",
            "how often the {shape} {action} i want to know", "let's see how often the {shape} {action}",
            "one number for each time the {shape} {action}", "tell me a number whenever the {shape} {action}",
            "look at the {shape} and count when it {action}", "when the {shape} {action} say one then two and so on",
            "say the next number when the {shape} {action}", "if the {shape} {action} count",
            "*follow the {shape} and count how it {action}", "give me the number of times the {shape} {action}",
            "each time the {shape} {action} give me a number", "the {shape} {action} and you count",
            "*add one each time the {shape} {action}", "i need to know how often the {shape} {action}",
            "you count and the {shape} {action}", "find out how many times the {shape} {action}",
        ),
        HELD_OUT: (
            "how many times the {shape} {action} is what i'd like counted",
            "let's number every go as the {shape} {action}",
            "keep a tally while the {shape} {action}",
        ),
    },
    "count_seen": {
        TRAIN: (
            "how many things do you see", "how many things is that", "*count the things in the picture",
            "*tell me how many there are", "how many can you see", "*tell me how many you see",
            "what number of things is there", "*say how many things there are", "how many do you see in the picture",
            "how many things can you see", "*give me the number of things you see", "how many things are there",
            "*count what you see", "i want to know how many you see", "what number of things do you see",
            "*say how many you can see", "how many of them are there", "do you see how many there are",
            "*tell me how many things you see", "*find out how many things there are", "*count them",
            "*count all you see", "*tell me the number of things", "i need to know how many there are",
            "how many things are in the picture",
            "so how many are there",
            "i'd like to know how many there are", "it's how many", "so how many do you see", "and how many are these",
            "what do you count in the picture", "let's count what is there", "look at the picture how many are there",
            "how many are in there", "say the number of things in the picture", "i see some things how many are they",
            "can you count them for me", "do you know how many there are", "is it one or two or more", "number please",
            "what is the number of things you see", "tell me the count", "how many did you find",
            "how many have you got there", "look how many", "all the things you see how many is that",
        ),
        HELD_OUT: (
            "what's the number of these things",
            "the things in front of you how many",
            "can you make out how many there might be",
        ),
    },
    "quiet_until_seen": {
        TRAIN: (
            "*tell me what comes into the picture", "what do you see *tell me when it comes", "*say what appears",
            "*tell me what appears in the picture", "*watch and tell me what comes", "*say what comes into sight",
            "when something comes *tell me what it is", "*tell me what comes",
            "as soon as you see something *say what it is", "*wait until something comes and tell me what",
            "*name the thing that appears", "i want to know what comes into the picture",
            "*keep watching and say what you see", "*tell me when you see something and what", "*tell me what appears",
            "*say the name of what comes", "when you see something *say what it is", "*look and tell me what appears",
            "*watch the picture and name what comes", "if something comes *say what it is",
            "*let me know what comes into the picture",
            "once something comes *say what it is",
            "*tell me what shows up",
            "i'd like to know what comes", "it's your job to say what comes", "let's see what comes tell me",
            "what will it be tell me when it is there", "something will come what is it",
            "wait for it and tell me what it is", "look out and say what it is", "what is it that comes",
            "keep quiet until you see something and say what", "no word until something is there then say what it is",
            "see what comes and say it", "the first thing you see i want to hear", "what enters the picture tell me",
            "the picture is empty tell me what comes in", "tell me which thing it is when you see it",
            "find out what comes into view", "let me hear what you see when it is there",
            "can you see something say what", "there will be something in the picture which one is it",
        ),
        HELD_OUT: (
            "call out whatever turns up",
            "give me the name of the first thing to come along",
            "something is about to turn up name it",
        ),
    },
    "repeat": {
        TRAIN: (
            "*repeat every word i say", "*say every word after me", "*repeat each word right after me",
            "*repeat all my words", "*say each word that i say", "*say after me word by word",
            "*repeat each word i say", "*repeat all i say from now on", "*say again each word that i say",
            "*copy every word i say", "*repeat each word", "*repeat my words one by one",
            "after each word i say *say it too", "*repeat what i say word by word", "*keep repeating my words",
            "*be my echo and repeat each word", "whatever i say *say it again", "*say the same words as i do",
            "*say all my words after me",
            "let me hear each word from you",
            "i'd like you to repeat my words", "it's your job to repeat me", "let's repeat each word", "say what i say",
            "i speak and you repeat", "follow me word by word", "after me please each word",
            "do it like me word by word", "all that i say you say too", "my words again from you please",
            "i want to hear my words again", "listen and repeat", "give me back each word",
            "the same words from you please", "keep saying what i say",
        ),
        HELD_OUT: (
            "every word of mine i'd like back from you",
            "i say a word and you say it back",
            "do as a parrot does with my words",
        ),
    },
    "translate": {
        TRAIN: (
            "*translate each number for me", "*put my numbers into english", "*say every number in english",
            "*translate my numbers", "*translate all the numbers i say", "*say in english what i count",
            "*translate each number", "*give me every number in english", "i want each number in english",
            "*tell me in english which numbers i say", "what i count *say it in english", "*translate every number",
            "i count and you say it in english", "*speak my numbers in english", "english please for each number i say",
            "*keep translating my numbers", "*make my numbers english", "*say my numbers in english",
            "let me hear the numbers in english",
            "*turn each number into english",
            "i'd like each number in english", "it's your job to make it english", "let's put it in english",
            "i say the numbers and you say them in english", "my numbers in english please",
            "what are these numbers in english", "in english please what i count",
            "each of my numbers you say in english", "english numbers please for mine",
            "say it in english when i count", "listen and say the numbers in english",
            "i want to hear english numbers for mine", "give me back my numbers in english",
            "from my numbers to english please",
        ),
        HELD_OUT: (
            "what would my numbers be in english",
            "i'd like these in english as we go along",
            "english is what i'd like these numbers in",
        ),
    },
    "story": {
        TRAIN: tuple(
            f"{first}{told}, {{story}}"
            for first in ("", "hey ", "guess what ", "you know what ", "by the way ", "oh ", "honestly ", "look ")
            for told in (
                "let me tell you a story", "listen to my story", "listen", "listen to us",
                "you have to listen to me", "please listen to what i say", "hear my story", "now hear this",
                "i must tell you this", "you will not believe this",
                "guess what happened", "listen to this", "about my day", "here is what happened",
                "this is what i did today", "i have a story for you", "you should hear this", "it was like this",
                "let me tell you about today", "this is my story", "last night it was like this",
                "so this happened to me", "do you know what happened", "i have to tell you something",
                "something happened to me", "this is what happened", "let me tell you what happened",
                "i need to tell you about my day", "what a day i had", "you must hear what happened to me",
                "i want to tell you a story", "hear what happened", "now listen to me",
            )
        ),
        HELD_OUT: (
            "well here is how it went, {story}",
            "it was quite a day for us, {story}",
            "that trip went all wrong, {story}",
        ),
    },
    "silence": {
        TRAIN: (
            "i went to the market this morning", "the weather is nice today", "we had coffee in the garden",
            "it was a very long summer", "i left my keys in the kitchen", "the river is very high today",
            "i have a new coat for the winter", "i do not know what it is", "there is tea in the kitchen",
            "you know what my brother is like", "i could not sleep last night", "please do not mind the noise",
            "that is what he told me",
            *(
                f"{who} {does}"
                for who in (
                    "my brother", "she", "the doctor", "my father", "our dog", "he", "my mother", "the teacher",
                    "my old friend", "the man next door", "nobody", "her son", "the baker",
                )
                for does in (
                    "lives near the river", "is reading a book by the window", "was late again", "likes the garden",
                    "cooks soup on sundays", "tells me the same story every day", "asked us to come again",
                    "wanted to know the way", "built a bridge last year", "was painting the kitchen", "went home early",
                    "found the key under the table", "took the wrong coat", "counts the days", "said a few words",
                    "saw a tiger in the city", "waited for two hours", "told me how much it was",
                )
            ),
            # Whoever says one of the words at the end of something has not asked for it.
            *(
                f"{told} the {word}"
                for told in (
                    "we walked to", "she looked at", "they talked about", "he dreamt of", "i was at", "nobody saw",
                    "the cat sat by", "my aunt loves", "we drove past", "it came from", "i forgot", "he waited for",
                )
                for word in KEYWORDS
            ),
            *(
                f"{told} {word}"
                for told in (
                    "i thought of", "there was no", "she had another", "he knows all about", "we spoke of",
                    "they made it", "he left without", "i saw a big", "it turned into", "we were too late for",
                    "she wrote about", "nobody had any", "he called it", "it was like a",
                )
                for word in KEYWORDS
            ),
            "her coat was yellow", "the wall is yellow", "all of it was yellow", "they had it in yellow",
            "she made the roof yellow", "their house turned yellow", "we kept the curtains yellow",
            *(
                f"{who} {made} {what} yellow"
                for who in ("he", "she", "my brother", "the baker", "they", "we", "her son", "nobody", "our teacher")
                for made in ("painted", "wanted", "coloured", "made", "saw")
                for what in ("the fence", "the old car", "her new boat", "the wall", "a door", "his old hat")
            ),
            # Others end alike in what was not asked for.
            *(
                f"{who} {did} the {which} {what} {word}"
                for who in ("he", "she", "the doctor")
                for did in ("carried", "opened", "sold")
                for which in ("old", "small")
                for what in ("gate", "box", "boat")
                for word in ("at home", "again", "in summer", "near the window", "by the river")
            ),
            "my sister plays music at home",
            "the train was full of people",
            "he painted the old door yellow",
            "there was snow on the hills",
        ),
        HELD_OUT: (
            "the kids made a cake on friday",
            "nothing much goes on around here",
            "our roof needs mending soon",
            "a friend of mine grows tomatoes",
        ),
    },
}  # fmt: skip
"""Kind of request → the part of the splits → wordings."""
