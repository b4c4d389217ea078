"""The storybook's plots, in a notation that a person can read and extend.

    == the lost toy (object: toy, kin: kin)      a plot's name, and its cast: the roles that stay the same

    One {sunny} {morning}, the {object} was gone.    a paragraph is a step of the story, a line one wording of it
    When {name} woke up, {he} could not find
      the {object} anywhere.                         an indented line continues the line above
    -                                                this step may be omitted
    <closing>                                        inserts all lines of a shared paragraph

A slot names a role of the cast or a class of words; a slot with a class draws a new word at each use. `{a lovely}`
adds the article that fits the word, and a capital, as in `{Soon}`, begins a sentence. Every story has a hero:
`{name}`, `{he}`, `{his}`, `{him}`, `{himself}` and `{boy}` agree with each other. `{kin.he}` agrees with another role.

The first step of every plot names the hero and the object, and the last step names both again.
"""

from tinyllm.corpus.storybook_plots import animals, friends, home, outdoors

PLOTS = home.PLOTS + friends.PLOTS + outdoors.PLOTS + animals.PLOTS

SHARED = """
<opening>
Once upon a time there was {a kind} {boy} named {name}. {He} had {a lovely} {object}.
{name} was {a kind} {boy} who loved {his} {red} {object}.
There once was {a kind} {boy} called {name}, who owned {a red} {object}.
In a house near the {place} lived a {boy} named {name}. {His} favorite thing was {a lovely} {object}.
{A kind} {boy} named {name} had {a red} {object}. It was a gift from {his} {kin}.
{name} got {a lovely} {object} for {his} birthday. {He} was {a kind} {boy} and took it everywhere.
Long ago, by the old {landmark}, there lived {a kind} {boy}. {His} name was {name}, and {he} had {a red} {object}.
Everyone knew {name}, the {kind} {boy} with the {lovely} {object}.

<finding>
Once upon a time {a kind} {boy} named {name} found {a lovely} {object} near the {landmark}.
{name} was {a kind} {boy} who liked long walks. One {sunny} {morning} {he} found {a red} {object} on the path.
"What is this?" said {name}, {a kind} {boy}. Something {red} lay in the grass. It was {a lovely} {object}!
On {weekday}, {a kind} {boy} named {name} went to the {place}. There {he} found {a lovely} {object} under {a tree} tree.

<closing>
That night {name} fell asleep with the {object} beside {him}.
From that day on, {name} took very good care of the {object}.
{name} hugged the {object} and felt {very} {glad}.
And {name} carried the {object} all the way home, feeling {very} {glad}.
"What {a good} day," said {name}, and {he} smiled at the {object}.
After that, whenever {name} looked at the {object}, {he} felt {glad} again.

<friendly closing>
{name} and {friend} played with the {object} until the sun went down.
From that day on, {name} and {friend} shared the {object}, and they were always {glad}.
"What {a good} day," said {name}. {friend} {laughed} and patted the {object}.
That night {name} dreamed of {friend} and the {object}.
When it was time for {lunch}, {name} put the {object} away and thanked {friend} {softly}.
"""
