"""Plots under the open sky: gardens, wind, snow, the sea, first rides."""

PLOTS = """
== the tall tree (object: toy, friend: child)

<opening>

One {sunny} {morning}, {name} threw it high into the air, and it landed in {a tree} tree.
On {weekday} {he} played at the {place} with {friend}. A gust of wind carried the toy into a tree.
While {he} played, {a tiny} {animal} snatched it and left it at the top of a tree.

"Oh no!" {he} {said}. "I can never reach it."
{He} jumped and jumped, but the branch was too high.
{name} looked up and {sighed}.

{friend} saw it and tried to shake the trunk.
"Let me help you," said {friend}.
{friend} threw a shoe at it, and then the shoe was stuck too!

"We could climb," said {friend}, but the trunk was slippery.
They stood on {a box}, but it was still too high.
They poked at it with a broom, but it would not move.

"I know!" said {name}. "You stand on my shoulders."
{Soon}, {friend} had {a good} plan. "Let us ask the {job} for a ladder."
Then {name} had {a good} idea. {He} tied a stone to a string.

{friend} stretched out one hand, then one finger, and got it.
Up they went, a little higher, and a little higher still.
They tried once, they tried twice, and then it came loose.

Down it fell, right into a bush of {flower}.
Down it came with {a sound}, along with a shower of leaves.
It landed in {his} arms. "Hooray!" {he} said {merrily}.

<friendly closing>

== the secret garden (object: treasure, kin: kin)

<finding>

Behind {a landmark} {he} saw a small green door that {he} had never noticed.
It was {sunny}, so {he} walked on, past the {landmark}, until {he} came to a door in a wall.
A path led between the {tree} trees to a rusty gate.

{He} pushed. The door opened with {a sound}.
"Is anybody there?" {he} asked {softly}. Nobody answered.
{He} was a little {afraid}, but {he} went in.

Inside was a garden that everybody had forgotten. Weeds grew over the {flower}.
It was a secret garden! But the {flower} were thirsty, and the fountain was dry.
There were crooked {tree} trees, wild {flower} and a broken bench.

"Poor garden," {he} said. "I will take care of you."
Every {weekday} {he} came back to pull weeds and water the {flower}.
{He} told only {his} {kin}, and they worked there together.

{Soon}, green leaves peeked out of the earth.
{Soon}, there were {bugs} everywhere, and the air smelled of honey.
When summer came, {vegetable} and {flower} grew side by side.

One day {his} {kin} said, "I played here when I was small."
One {sunny} {morning} an old {job} looked over the wall and smiled.
{Suddenly}, {he} heard {a sound}. {A bird} had built its nest there.

"It was waiting for someone like you," said the gardener next door.
"Now it is the most beautiful place in town," {he} said.
-

{name} hung the {object} on the gate, so that every child could find the way.
{name} kept the {object} to remember the day when {he} found the garden.
{name} buried the {object} under the {flower}. It was a gift for the garden.

== the snowman (object: clothing, friend: child)

<opening>

One winter {morning} the whole world was white. {name} {ran} outside.
It had snowed all night. "Let us make a snowman!" {said} {friend}.
On {weekday} it began to snow, and {name} called {friend}.

{friend} came too, and they rolled three big balls of snow.
They rolled the snow until {friend} was out of breath.
They worked all {morning}, and {friend} sang a song about {vegetable}.

They gave the snowman stones for eyes and a carrot nose.
They used {fruit} for the eyes and a stick for the mouth.
The snowman got two arms of {tree} wood and a row of buttons.

But something was missing. "He looks {sad}," said {friend}.
"He must be cold," said {friend}.
"He looks like the {job}," said {friend}, "but something is missing."

{name} thought for a moment. Then {he} took off what {he} wore and gave it to him.
"I know what he needs," {name} said {softly}.
"He can borrow mine," said {name}.

Now the snowman looked {good}. {friend} {laughed}.
They danced around him until their toes were cold.
The snowman seemed to smile. Even {a tiny} {animal} came to look.

Then they drank hot {drink} by the stove.
At home {his} {kin} had made {a tasty} {treat} for each of them.
They threw snowballs until it was time for {lunch}.

When the snow melted, {name} found the {object} on the wet grass and thought of {friend}.
In the morning the {object} hung on the door. "Did he bring it back?" {name} asked {friend}.
All winter long the snowman wore the {object}, and {name} and {friend} waved to him.

== the picnic (object: treat, friend: child, tree: tree)

{name} was {a kind} {boy}. On {weekday} {he} packed {a tasty} {object} for a picnic with {friend}.
Once upon a time {a kind} {boy} named {name} took {a tasty} {object} to the {place}. {friend} came along.
"Let us have a picnic," said {name} to {friend}. {He} was {a kind} {boy}, and {he} had {a tasty} {object}.

They also brought {fruit} and a bottle of {drink}.
{friend} carried {fruit} in {a box}.
They spread {a red} blanket near the {landmark}.

The grass was soft, and {bugs} danced in the air.
First they played {game} under {a tree} tree.
They lay on their backs and saw a cloud that looked like {a animal}.

{Suddenly}, a long line of ants marched over the blanket.
Then {friend} heard {a sound}. Somebody was near the food!
When they turned around, {a tiny} {animal} sat in the middle of the lunch.

"Our food!" {said} {friend}.
"Go away!" {friend} {said}, feeling {afraid}.
{friend} jumped up and {sighed}.

"Wait," said {name}. "They are only hungry, just like us."
"There is enough for everyone," said {name} {softly}.
But {name} only laughed. "We have guests!" {he} said.

{He} put a few crumbs on a leaf, a few steps away.
They laid a trail of crumbs to the {tree} tree, and the visitors followed it.
{He} cut off a small piece and shared it.

{Soon}, everybody was eating, and it was {very} peaceful.
After that nobody bothered them, and they told stories about {a job}.
{friend} {laughed} too. It was the best picnic of the year.

{name} and {friend} shared the rest of the {object} and licked their fingers.
"Everything tastes better outside," said {name}, and gave {friend} the last bite of the {object}.
Then {name} promised to bring a bigger {object} next time, and {friend} was {very} {glad}.

== the wave (object: toy, kin: kin)

<opening>

In summer {he} went to the sea with {his} {kin}. The water was calm and blue.
On {weekday} {his} {kin} took {him} to the beach.
One {sunny} {morning}, {name} and {his} {kin} built a castle of sand.

{name} dug a deep hole and looked for shells and {bugs}.
They decorated the towers with feathers and {red} stones.
{He} played close to the water, and the foam tickled {his} toes.

{Suddenly}, a big wave rolled in and took the toy away!
Then came a wave, bigger than all the others. Splash! The toy floated off.
{name} looked away for a moment, and the tide carried the toy out to sea.

"Come back!" {name} {said}. {He} {sighed}.
{name} wanted to run after it, but the water was deep.
"It is gone forever," said {name}, feeling {very} {sad}.

"Stay here where it is safe," said {his} {kin}. "What the sea takes, the sea can bring."
{His} {kin} held {his} hand. "Let us wait for the tide," {kin.he} said {softly}.
"Watch," said {his} {kin}. "Waves go out, and waves come in."

They ate {fruit} and waited. The gulls cried above them.
They sat on a log and counted sails.
They walked along the shore and asked {a job} and {a tiny} {animal}.

Near the {landmark} something small bobbed in the foam.
{Soon}, the tide turned and laid something wet at {his} feet.
At sunset a kind fisherman rowed to the shore. "Is this yours?" he asked.

"You brought it back!" {he} {said}, and {he} {laughed}.
"Thank you, sea!" {he} said {merrily}.
-

<closing>
{name} dried the {object} in the sun and never left it near the waves again.

== the treasure map (object: treasure, friend: child)

<finding>

There was also a piece of old paper. "It is a map!" {said} {friend}, who was with {him}.
{He} showed it to {friend}. Something was scratched on it, and it looked like a map.
Next to it lay a map with a red cross. {He} called {friend} at once.

"Ten steps from the {landmark}," read {friend}.
"Go to the {place} and turn left," said the map.
"Start at the {tree} tree," read {friend} {softly}.

They ran there as fast as they could.
They crossed the {place} and crawled under a fence.
On the way they met {a job}, who only smiled.

They dug and dug, but they found only worms.
There they saw a deep hole. {friend} was {very} {afraid}.
{A tiny} {animal} blocked the path and would not move.

"Maybe the map is wrong," said {friend}, feeling {sad}.
{friend} {sighed}. "Let us go home."
"I am tired," said {friend}.

"One more try," said {name}.
But {name} turned the map around. "We held it upside down!" {he} said.
"Treasure hunters never give up," {name} said {softly}.

{Suddenly}, the shovel hit something hard with {a sound}. It was {a box}!
Under a flat rock they found {a box} with {a red} lid.
At last they found {a box} between the roots.

It was full of {tasty} candy and a note. "Well done! With love, your {kin}."
Inside were {lovely} marbles, {fruit} and a letter from {his} {kin}.
Inside lay a letter. "The real treasure is your friendship," it said.

{name} and {friend} put the {object} into the chest and buried it for the next child.
"We are rich!" {name} said {merrily}, holding up the {object}, and {friend} {laughed}.
{name} kept the {object}, {friend} kept the map, and they were {very} {glad}.

== the seed (object: tool, kin: kin)

{name} was {a kind} {boy} who had {a lovely} {object}. {His} {kin} gave {him} a tiny seed.
Once upon a time {a kind} {boy} named {name} got a seed and {a red} {object} from {his} {kin}.
"A seed!" said {name}, {a kind} {boy}. {He} took {his} {red} {object} and {ran} into the yard with {his} {kin}.

{He} made a hole near the {landmark} and covered the seed with earth.
{He} planted it beside the {flower} and gave it some water.
They planted it between the {vegetable} and the fence.

"Now we have to wait," said {his} {kin}.
"Good things take time," {his} {kin} said {softly}.
"Give it water, sun and patience," said {his} {kin}.

Every {morning} {name} looked, but nothing happened.
{name} waited one day, two days, three days. There was only mud.
{He} sang to it in the morning and told it jokes at night.

"It will never grow," said {name}, and {he} {sighed}.
{He} wanted to dig it up, because {he} was {sad}.
"Maybe the {bugs} ate it," {he} said, feeling {sad}.

"Do not dig," said {his} {kin}. "A seed works in secret."
{His} {kin} laughed {softly}. "It is growing where you cannot see it."
"Under the ground it is very busy," said {his} {kin}.

Then, after a week of rain, {he} saw a green tip.
One {sunny} {morning}, a little leaf poked out.
{Suddenly}, {he} saw it! It was green and as small as a pin.

It grew as tall as the {boy}, then as tall as the {landmark}.
{Soon}, it was covered with {red} flowers, and {bugs} came to visit.
By summer it was full of ripe {fruit}.

{name} leaned the {object} against the wall and picked a flower for {his} {kin}.
"Patience is a gardener's best {object}," said {his} {kin}, and {name} {laughed}.
The next spring {name} took the {object} again and planted ten seeds with {his} {kin}.

== the windy day (object: clothing, job: job)

<opening>

On {weekday} the wind was wild. It shook the {tree} trees and rattled the shutters.
One {stormy} {morning} a strong wind blew across the {place}.
It was autumn, and leaves whirled through the air.

{Suddenly}, whoosh! The wind pulled off the {object} and carried it away.
{name} lifted {his} arms, and the wind tore the {object} away.
At the {landmark} the wind gave a great puff, and off it flew.

"Stop!" {name} {said}, and {he} ran after it.
"Come back here!" {he} {said}.
{name} ran as fast as {he} could.

It flew over the {landmark} and past {a tiny} {animal}.
It sailed above the {place} like a big {bird}.
It danced over the roofs and scared the {bugs}.

It landed on the head of {a job}! Everyone laughed.
{Soon}, it dropped into the arms of {a job} who was carrying {fruit}.
At last it came down on a cart full of {vegetable}, which belonged to {a job}.

"What is this?" asked the {job}. "A gift from the sky?"
"Dear me," said the {job}. "It is raining clothes today!"
The {job} looked up, {very} surprised.

"Excuse me, that is mine," said {name}, out of breath.
"The wind stole it from me," {he} said {softly}.
{name} {laughed} and told the {job} what had happened.

The {job} smiled and gave {him} a pin to hold it fast.
"Here you are," said the {job}, "and have {a tasty} {treat} too."
"The wind likes you," the {job} said {softly}.

<closing>
{name} held the {object} with both hands and waved to the {job}.

== the first ride (object: ride, kin: kin)

<opening>

But there was a problem. {name} did not know how to ride.
{He} pushed it around the yard, but {he} was too {afraid} to ride.
The other children could ride already. {name} could not.

On {weekday} {he} tried for the first time and fell into the {flower}.
One {sunny} {morning} {he} tried, wobbled, and crashed into {a landmark}.
{He} got on, rolled past {a tiny} {animal}, and tumbled into the grass.

"I will never learn," said {name}, and {he} {sighed}.
{His} knee hurt, and {he} felt {sad}.
"It is too hard!" {he} {said}.

{His} {kin} helped {him} up. "I fell ten times before I could do it," {kin.he} said.
"Falling is a part of learning," {his} {kin} said {softly}.
"Look ahead and not at your feet," said {his} {kin}.

"Will you hold me?" asked {name}. "I will not let go until you say so," said {his} {kin}.
They went to the {place}, where the path was flat.
{His} {kin} held {him} with both hands and ran beside {him}.

{He} tried again, and again, and once more.
{He} went past the {landmark}, slowly at first, then faster.
{Soon}, {he} did not wobble anymore.

{Suddenly}, {name} looked back. {His} {kin} was far behind. {He} was riding alone!
"I am doing it!" {he} said {merrily}. The {bugs} flew out of {his} way.
{His} {kin} let go {softly}, and {he} went on, straight as an arrow.

{name} rode the {object} around the {place} three times, and {his} {kin} {laughed}.
"The {object} and I can fly!" said {name}, feeling {very} {glad}.
From that day on, {name} rode the {object} everywhere, even to buy {vegetable}.

== the star (object: toy, kin: kin)

<opening>

One {sunny} night {he} sat on the roof with {his} {kin} and watched the sky.
On {weekday} {his} {kin} let {him} stay up late to see the stars.
At night {he} looked out of the window. The moon hung over the {place}.

{Suddenly}, a star fell. "Make a wish," {said} {his} {kin}.
A bright star crossed the sky. "Did you see that?" asked {his} {kin}.
"Look," {his} {kin} said {softly}. "A falling star!"

{name} shut {his} eyes. {He} wished for {a tiny} {animal}.
{name} wished that {he} could fly like {a bird}.
{name} wished to be a great {job} one day.

"Will it come true?" {he} asked.
"What did you wish for?" asked {his} {kin}. "That is a secret," said {name}.
"Where do the stars go?" {he} asked.

"Wishes need a little help from us," said {his} {kin}.
"Some wishes are slow," {his} {kin} said {softly}.
"They go to sleep in the sea," said {his} {kin}.

That night {he} dreamed of silver {bugs} and a river of {drink}.
In {his} dream {he} {ran} along the Milky Way and played {game} with the moon.
In {his} dream {a bird} carried {him} over the {place}.

When {he} woke up, it was {a sunny} morning.
In the morning the sun tickled {his} nose.
-

There was {a sound} at the door. {His} {kin} had a surprise behind {kin.his} back.
At {lunch} {his} {kin} gave {him} a book about stars.
On the pillow lay a tiny {treasure}. Had the star come to visit?

<closing>
{name} showed the {object} to the moon and felt {very} {glad}.
"""
