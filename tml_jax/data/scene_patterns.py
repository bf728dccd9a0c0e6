"""Turns of phrase of training, composed of parts: "[when|once] [i say|you hear] {cue} [say|answer] {keyword}".

Lists of wordings, as in `scene_requests.py`, hold the same few turns again and again, and a replica that knows these
does not know others: with the held-out ones two words away from any of training, it understood half of the cues and of
the plain requests. Each pattern stands for hundreds.
"""

_WHEN = "[when|once|as soon as|if|whenever|the moment]"
_SAY = "[you say|say|answer|reply with|i want|i want to hear|give me|let me hear|tell me|it is]"
_ASK = "[say|answer|reply with|give me|let me hear|tell me|i want|i want to hear|i need]"
_WISH = "[i want|i'd like|i need|we want|we need|they want|she wants|i wish for]"
_SEE = "[you see|there is|you find|you notice|you can see|we see|i show you]"
_COMES = "[comes|appears|is there|comes in|arrives|is seen]"
_GOES = "[goes|leaves|is gone|is away|disappears|ends]"

# Fields and commas are those of `scene_requests.CARRIERS`.
PATTERNS = {
    "answer": (
        "[i want|i'd like|i need|we want|we need|they want|she wants] [you|to hear you|somebody|a voice] "
        "[say|to say|to repeat|to speak|to read out|to mention|say the word] {keyword}",
        "[when|if|now that] [you are ready|you can|it suits you|you like|you have time] "
        "[say|repeat|tell me|give me|speak|read out|then say] {keyword}",
        "[it is|it's|now it's] [your turn|time|your job|up to you|good|best] to [say|repeat|speak|hear] {keyword}",
        "[have you got|do you have|is there|can there be] a {keyword} for [me|us|them|her]",
        "{keyword} [is|was|will be|has to be] [the word|what i want|what i need|what we need|what you say|your word] "
        "[now|today|this time|please|so say it|say it]",
        "[the|our|my|this|a good] [word|answer|magic word|next one|first one|password] "
        "[is|will be|has to be|must be|should be] {keyword}",
        "[could|can|may|might] [i|we|they|she] [hear|get|have] [the word|just|only|one] {keyword}",
        "[who|which of you|what voice] [can|will|could] [say|repeat|speak] {keyword} [for me|for us|now|]",
    ),
    "pause": (
        "[i want|i'd like|i need|we want|they want|she wants|i ask] "
        "[you to say|you to repeat|to hear|to hear you say|the word|you to speak], {keyword}",
        "[the|my|our|your|this|a good] [word|next word|first word|answer|next one|best word|only word|password] "
        "[is|was|will be|has to be|should be|must be], {keyword}",
        "[can|could|would|will] [you|you please|you now|somebody] [say|repeat|speak|pronounce|tell me|give me], "
        "{keyword}",
        "[it's|it is|now it's] [time to say|your turn to say|good to hear|time for|up to you to say], {keyword}",
        "[well|so|okay|now then|listen|and|um|right] [say|repeat|the word is|i want|what i want is|give me], {keyword}",
        "[please|just|now] [say|repeat|speak|tell me|give me] [the word|this word|after me|for me|only|just], "
        "{keyword}",
    ),
    "count": (
        "[i want you to|i'd like you to|we want you to|please|now|it's time to|why don't you|go and|try to|you have to"
        "|i need you to|let us hear you] [count|count aloud|count out loud|keep counting|go] "
        "[to|up to|all the way to|until|from one to|as high as] eight",
        "[the|all|your|some|those] numbers [to|up to|from one to|until] eight "
        "[please|now|for me|for us|i want|are what i want]",
        "[can|could|may] [i|we|they|she] [hear|have|get] [the|all|your] numbers [to|up to|from one to] eight",
        "[start|begin|go on|carry on] [counting|with one|with the numbers|with counting] "
        "[now|please|for me|for us|and go to eight|up to eight]",
        "[show me how|tell me how|let me see how|i want to know how|do you know how] [you count|to count|to number] "
        "[to eight|up to eight|from one|from one to eight]",
    ),
    "timed": (
        f"[in|after|when it has been|not before] {{delay}} seconds [then|please|] {_SAY} {{keyword}}",
        f"{_ASK} {{keyword}} [in|after|when it has been|but not before|only after|no sooner than] {{delay}} seconds",
        "[wait|rest|hold on|stay quiet|do nothing|say nothing|sleep|pause] [for|] {delay} seconds "
        "[then|and then|and|before you|then you] say {keyword}",
        "{delay} seconds [from now|later|of quiet|more|to go] [and|then|and then] "
        "[say|you say|it is|comes|i want] {keyword}",
        "{keyword} [in|after|but after|not before] {delay} seconds [from now|please|are over]",
    ),
    "cue": (
        f"{_WHEN} [i say|you hear|i tell you|i call|i speak the word|you hear me say|i come to] {{cue}} "
        f"[then|please|] {_SAY} {{keyword}}",
        f"{_ASK} {{keyword}} [when|once|as soon as|if|whenever|after|but only after|not before|only when] "
        "[i say|you hear|i tell you|i call|you hear me say|i come to] {cue}",
        "{cue} is [the word|my word|your sign|the sign|my call] [for you|] to [say|answer|tell me] {keyword}",
        "[my|the|your] [sign|word|call] is {cue} [then|and then|and|after it|at it] [you say|say|answer|i want] "
        "{keyword}",
        "[wait|stay quiet|hold on|say nothing|be silent|do nothing] [until|till|before] "
        "[i say|you hear|i call|i give you|you get] {cue} [then|and then|and] [say|answer|tell me|it is] {keyword}",
        "[at|on|to|with|after] {cue} [you answer|you say|comes|i expect|your word is|you reply with] {keyword}",
    ),
    "visual": (
        f"{_WHEN} {_SEE} [a|the|any] {{shape}} [then|please|] {_SAY} {{keyword}}",
        f"{_ASK} {{keyword}} {_WHEN} {_SEE} [a|the|any] {{shape}}",
        f"{_WHEN} [a|the|any] {{shape}} {_COMES} {_SAY} {{keyword}}",
        f"{_ASK} {{keyword}} {_WHEN} [a|the|any] {{shape}} {_COMES}",
        "[watch|look|wait] for [a|the|any] {shape} [then|and then|and] [say|answer|tell me|it is] {keyword}",
        "[a|the] {shape} is [the sign|your sign|what you wait for|what you look for] [to|so|and then] say {keyword}",
        "[at|on|to|with|for] [a|the] {shape} [you answer|you say|comes|i expect|your word is|you reply with] {keyword}",
    ),
    "visual_stop": (
        f"{_WHEN} [a|the] {{shape}} {_COMES} [say|answer|i want|tell me|it is] {{keyword}} "
        f"[and when|and once|and if] it {_GOES} [say|it is|i want|tell me|] {{second}}",
        f"{_ASK} {{keyword}} {_WHEN} {_SEE} [a|the] {{shape}} [and|then|and then] {{second}} [when|once|if] it {_GOES}",
        f"{_ASK} {{keyword}} {_WHEN} [a|the] {{shape}} {_COMES} [and|then] {{second}} [when|once|if] it {_GOES}",
        f"{{keyword}} [when|if|once] [the|a] {{shape}} {_COMES} [and|but|then] {{second}} [when|if|once] it {_GOES}",
        "[watch|look|wait] for [a|the] {shape} [then|and] [say|it is|tell me] {keyword} "
        f"[and|then] {{second}} [when|once|if] it {_GOES}",
        "[with|at|for|to] [a|the] {shape} [you say|comes|i want|goes] {keyword} "
        "[and after it|and without it|and at its end|and later] [you say|comes|i want|] {second}",
    ),
    "repetition": (
        "[when|whenever|each time|every time|as often as|if|as soon as] the {shape} {action} "
        "[count|say a number|say the next number|tell me a number|give me a number|count on|you count|count it]",
        "[count|tell me|say|find out|i want to know|i need to know|keep track of|watch|tell us] "
        "how [often|many times] the {shape} {action}",
        "[say|tell me|give me|i want|i need|let me hear] [a|the next|one] number "
        "[when|whenever|each time|every time|if] the {shape} {action}",
    ),
    "count_seen": (
        "[how many|what number of] [things|objects|shapes|of them|of these] "
        "[do you see|can you see|are there|are in view|are shown|do you count|have we got] [now|here|]",
        "[tell me|say|i want to know|i'd like to know|let me know|find out|i wonder|do you know] how many "
        "[there are|you see|you can see|you count|things there are|objects you see|are in view|of them you see]",
        "[count|add up] [the things|the objects|everything|all of them|what there is|what i show you] "
        "[for me|please|now|in view|you see|]",
    ),
    "quiet_until_seen": (
        f"{_WHEN} [something|anything|a thing|an object] {_COMES} [say|tell me|name|i want to know] "
        "[what it is|what|its name|what came]",
        "[say|tell me|i want to know|i'd like to know|name|find out] what "
        "[comes|appears|arrives|you see|is coming|comes in|will come] [into view|next|first|then|there|]",
        "[watch|look|wait|keep looking|keep watching] [and|then|until something comes and] [say|tell me|name] "
        "[what comes|what you see|what it is|what appears]",
    ),
    "repeat": (
        "[repeat|copy|say again|say] [each word|every word|all the words|whatever|everything|all] "
        "[i say|i speak|that i say|you hear|i tell you] [after me|right away|at once|as i go|one by one|]",
        "[when|after|each time] i say [a word|something|one word] "
        "[you say it too|say it too|repeat it|you repeat it|say it again|copy it]",
        "[i'd like|i want|i need|we want] [you to repeat|to hear again|you to say again|you to copy] "
        "[each word|every word|all the words|my words|all] [i say|of mine|after me|]",
    ),
    "translate": (
        "[translate|turn|put|say|change|make] "
        "[each number|every number|my numbers|all numbers|what i count|the numbers i say] "
        "[into english|in english|to english] [for me|please|one by one|as i count|right away|]",
        "[i'd like|i want|i need|we want] [you to translate|to hear|you to say|you to give me] "
        "[each number|every number|my numbers|the numbers] in english",
    ),
    "sum": (
        "[can|could|would|will] you [tell me|work out|find|give me|say|solve|do] {sum} [please|for me|now|quickly|]",
        "[i want|i'd like|i need|we want|we need|they want] "
        "[to know|you to work out|you to find|to hear|the result of|you to do|you to tell me] {sum}",
        "[and|so|now|well|tell me] [what|how much] [is|do i get for|would be|comes from|makes] {sum}",
        "[if|when] [i|you|we] [take|have|do|type] {sum} [what|how much] [is it|do i get|does it make|comes out]",
    ),
    "word": (
        "[i want|i'd like|i need|we want] [you to say|to hear|you to repeat|to hear you say] [the word|only|just] "
        "{word}",
        "[the|my|your] [word|next word|next one] [is|will be|must be] {word} "
        "[so say it|please say it|now say it|say it]",
        "[can|could|would|will] you [say|repeat|speak|give me] [the word|only|just|] {word}",
    ),
}
"""Kind of request → patterns; `sum` and `word` are those of `scene_delegation`."""
