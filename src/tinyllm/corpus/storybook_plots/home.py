"""Plots that happen at home."""

PLOTS = """
== the lost toy (object: toy, kin: kin)

<opening>

One {sunny} {morning}, the {object} was gone. {name} looked {spot}, but it was not there.
When {name} woke up on {weekday}, {he} could not find the {object} anywhere.
After {lunch}, {name} wanted to play, but the {object} was missing.

{He} {sighed}. "Where can it be?" {he} asked.
"Oh no," said {name}. "It is lost!" {He} felt {very} {sad}.
{name} searched every corner of the house and felt {very} {sad}.

{His} {kin} came to help. "Where did you play last?" {kin.he} asked {softly}.
"Let us look together," said {his} {kin}. "Two pairs of eyes see more than one."
{His} {kin} lit a candle and said, "Things never vanish. They only hide."

They peeked {spot}. They found an old {treasure} and {a vase}, but nothing else.
They emptied {a box} and moved every chair.
First they tried the kitchen. Then they tried the stairs.

{Suddenly}, {name} saw something {spot}. "There it is!" {he} {said}.
Then {name} remembered. {He} {ran} back and looked {spot}, and there it was!
At last {his} {kin} pointed. The missing thing was {spot}, covered with dust.

<closing>
{name} put the {object} on a shelf of its own, and it was never lost again.

== the dark room (object: toy, kin: kin)

<opening>

But {name} was afraid of the dark. Every night {he} pulled the quilt over {his} head.
When the lights went out, {name} always felt {very} {afraid}.
There was one thing that {name} did not like, and that was the dark.

One {stormy} night {he} heard {a sound} {spot}. "Who is there?" {he} whispered.
At bedtime a long shadow moved across the wall. It looked like a giant {animal}.
At midnight there was {a sound}, and then another.

{name} called for {his} {kin}, who came in slippers.
{His} {kin} heard {him} and opened the door {softly}.
{He} {sighed}, and soon {his} {kin} sat down on the bed.

"The dark is only the day with its eyes closed," said {his} {kin}.
"Let us look at it together," said {his} {kin}. "Hold my hand."
"Even brave people feel {afraid} sometimes," {kin.he} said {softly}.

They lifted the lamp and looked {spot}. It was only a coat on a hook!
They turned on a flashlight. The noise came from a loose window that tapped in the wind.
They listened, and {name} giggled. It was just the cat, asleep {spot}.

"So that is all it was," said {name}, and {he} {laughed}.
After that the night seemed soft and friendly.
-

<closing>
{name} held the {object} close and was not afraid of the dark anymore.

== the broken toy (object: toy, kin: kin)

<opening>

One {stormy} {morning}, {name} ran too fast and tripped. Crack! The toy broke in two.
On {weekday} it fell from the table, and a piece came off.
While {name} played {game} indoors, someone stepped on it. Snap!

{name} {sighed}. "It is ruined," {he} said.
Big tears rolled down {his} cheeks. {He} was {very} {sad}.
"I should have been careful," {he} whispered, feeling {sad}.

{His} {kin} looked at the pieces. "Broken things can be mended," {kin.he} said {softly}.
{He} showed it to {his} {kin}. "We need glue, string and patience," {kin.he} said.
"Do not give up," said {his} {kin}. "Bring me the glue from the {box}."

They worked at the kitchen table. {name} held the parts while the glue dried.
It took all {morning}. They glued, they tied, and they waited.
{name} painted over the crack with {red} paint.

{Soon}, the job was done. You could hardly see the crack.
{Soon}, it was whole again, and even stronger than before.
When they finished, there was a small scar, but {name} thought it looked {good}.

"Thank you for teaching me," {he} said, and they both {laughed}.
"Now I can fix things too!" {he} said {merrily}.
-

<closing>
Now {name} loved the {object} even more, because {he} had mended it {himself}.

== the baking day (object: treat, kin: kin)

{name} was {a kind} {boy} who wanted to bake {a tasty} {object}.
Once upon a time {a kind} {boy} named {name} dreamed of baking {a tasty} {object} all by {himself}.
"Today I will make {a tasty} {object}!" said {name}. {He} was {a kind} {boy} with flour on {his} nose.
On {weekday}, {a kind} {boy} called {name} found a recipe for {a tasty} {object}.

{He} mixed flour, eggs, butter and {fruit} in {a red} bowl.
{He} put on an apron and stirred the dough with a wooden spoon.
First {he} washed {his} hands. Then {he} cracked two eggs and chopped some {fruit}.

But {he} mixed up the jars, and in went salt instead of sugar!
But {he} forgot the oven, and black smoke filled the kitchen.
But the bowl slipped, and the dough landed on the floor with {a sound}.

"What a mess!" {he} {said}, feeling {sad}.
{He} {sighed}. "I will never be a cook," {he} said.
Flour was everywhere, even {spot}.

{His} {kin} came in and smiled. "My first one was burned too," {kin.he} said.
"Every baker makes mistakes," said {his} {kin}. "Let us try once more."
{His} {kin} did not scold. {kin.He} rolled up {kin.his} sleeves and found a clean pan.

They measured everything with care and watched the clock.
This time they tasted each thing before it went in.
They sang a silly song about {vegetable} while they waited.

{Soon}, the whole house smelled of sugar.
{Soon}, out it came, golden and {tasty}.
When the timer rang, they opened the oven and {laughed}.

{name} gave the first bite of the {object} to {his} {kin} and felt {very} {glad}.
"This is the best {object} in the world," said {name}, and they ate it with {drink}.
So {name} learned to try again, and the {object} was gone before {lunch}.
They shared the {object} with the neighbors, and {name} was {very} {glad}.

== the messy room (object: toy, kin: kin)

<opening>

But {name} never tidied {his} room. There were socks {spot} and crumbs everywhere.
{His} room was a jungle of books, socks and {fruit}.
{name} had one bad habit. {He} threw everything on the floor.

One {sunny} {morning} {he} wanted to play, but {he} could not even see the bed.
On {weekday} {he} stepped on a sharp block. "Ouch!" {he} {said}.
When {his} {kin} opened the door, a mountain of clothes fell out.

"Can {a animal} live in here?" asked {his} {kin}, trying not to laugh.
"I think we need a plan," {his} {kin} said {softly}.
"If you clean for ten minutes, I will help you," said {his} {kin}.

They put the books on the shelf and the socks in {a box}.
{name} swept the floor, and {his} {kin} carried the laundry.
They made a game of it and pretended to be {bugs}.

{Suddenly}, {name} found {a treasure} that {he} had missed for a year.
Behind the dresser they found {a vase} and a lost shoe.
{Soon}, they could see the carpet again. It was {red}!

"It looks {good}!" {name} said {merrily}.
{name} looked around and felt {very} {glad}.
-

Then {name} set the {object} in the middle of the clean floor and began to play.
Now the {object} had a shelf of its own, and {name} tidied up every {weekday}.
"Good night, clean room," said {name}, and {he} put the {object} beside the pillow.
There was room to dance, so {name} danced with the {object} until bedtime.

== the blanket fort (object: toy, kin: kin)

<opening>

It was {a stormy} {morning}, and rain drummed on the roof. {name} could not go out.
On {weekday} the rain would not stop. Puddles covered the yard, and {name} felt {sad}.
Outside it was {stormy}. {name} pressed {his} nose against the glass.

"There is nothing to do," {he} told {his} {kin}.
"I am bored," said {name}, and {he} {sighed}.
{He} had already played {game} three times with {his} {kin}.

"Then let us build a fort," said {his} {kin}.
{His} {kin} had {a good} idea. {kin.He} fetched four chairs and a heap of blankets.
"A rainy day is a secret present," {his} {kin} said {softly}. "Bring me the pillows!"

They hung {a red} sheet over the table and pinned it with clothespins.
They made walls out of cushions and a door out of a towel.
They stacked pillows as high as {a tree} tree.

Inside it was dim and cozy. They ate {fruit} and drank warm {drink}.
Inside, {his} {kin} told a story about {a job} and {a tiny} {animal}.
They crawled in with a flashlight and made a shadow {animal} on the wall.

"This is our castle," said {name}. "Only {bugs} may visit."
The rain sounded like music now.
-

{Soon}, the sun came out, but nobody wanted to leave.
{Soon}, the storm was over, and {name} had not even noticed.
-

{name} and the {object} slept in the fort that night.
"I hope it rains tomorrow," said {name}, and {he} tucked the {object} under a blanket.
And {name} made the {object} the king of the fort.
{name} hugged the {object} and felt {very} {glad}.

== the storm at night (object: toy, kin: kin)

<opening>

One night a terrible storm blew in. Thunder boomed, and the windows shook.
On {weekday} night the sky growled like a hungry {animal}.
It was {a stormy} evening. Lightning flashed over the {place}.

{Suddenly}, all the lights went out. {name} was {very} {afraid}.
Then the lamp flickered and went out. "Help!" {name} {said}.
The wind howled, and every light in the house went dark.

{His} {kin} found a candle. "Come and sit with me," {kin.he} said.
{His} {kin} wrapped {him} in a quilt and hummed {softly}.
"I am right here," {his} {kin} said {softly}.

"Count with me after each flash," said {his} {kin}. "Then you will know how far away it is."
"The thunder is only clouds bumping their heads," said {his} {kin}.
"When I was small, I was {afraid} too," said {his} {kin}.

They counted, one, two, three, four, five. The rumble was farther each time.
They roasted {vegetable} over the fire and told riddles.
{name} laughed, and the next crash did not seem so loud.

{Soon}, the rain grew quiet, and the moon peeked through the clouds.
By morning the sky was pink, and drops sparkled on the {flower}.
{Soon}, the lights came back, and the house was bright.

"The storm was not so bad," said {name}.
"I was brave, was I not?" {he} asked, and {his} {kin} {laughed}.
-

<closing>
{name} told the {object} all about the thunder and was {very} {glad}.

== the new baby (object: toy, kin: kin)

<opening>

One day a baby came to live in the house. It was tiny, and it cried all the time.
On {weekday} {his} {kin} brought home a new baby brother.
Then a baby sister was born, and everybody wanted to hold her.

Nobody had time to play {game} anymore. {name} felt {very} {sad}.
"They love the baby more than me," thought {name}, and {he} {sighed}.
{name} hid {spot} and felt {sad}.

{His} {kin} found {him}. "Our hearts grow bigger with every child," {kin.he} said {softly}.
"The baby does not know you yet," said {his} {kin}. "Would you like to say hello?"
{His} {kin} sat down next to {him}. "You were this small once," {kin.he} said.

{Suddenly}, the baby began to scream. Milk did not help. Songs did not help.
That {morning} the baby would not stop crying, not even for {drink}.
{name} tiptoed to the cradle. The baby's face was as red as a tomato.

Then {name} had {a good} idea. {He} made a funny face and quacked like {a animal}.
So {name} hummed and danced beside the cradle.
{name} reached in, and the baby grabbed {his} finger.

The baby stopped crying and smiled for the first time.
The baby looked up and giggled.
The baby hiccupped, blinked, and laughed.

{name} laid the {object} in the cradle. "You may borrow it," {he} said {softly}.
"I will share my {object} with you," said {name}, and {he} felt {very} {glad}.
From then on, {name} and the {object} sang the baby to sleep.
And {name} showed the baby the {object}, because {he} was a big {boy} now.

== the sick day (object: clothing, kin: kin)

<opening>

One {stormy} {morning}, {his} {kin} did not get up. {kin.He} had a fever and a cough.
On {weekday} {his} {kin} was ill and had to stay in bed.
{name} heard a sneeze, then another. {His} {kin} had caught a cold.

"Do not worry," said {his} {kin}. "I only need some rest."
"I will take care of you," {name} said {softly}.
"Today I am the doctor," said {name}.

{He} chopped {vegetable} and made a pot of hot soup.
{He} {ran} to the {place} and picked a bunch of {flower}.
{He} brought a tray with {fruit} and {a vase} of warm {drink}.

But the bedroom was still cold, and {his} {kin} shivered.
But the window was open, and {his} {kin} began to shake.
Then {he} saw that {kin.his} hands were as cold as ice.

So {name} looked {spot} for something warm.
{name} shut the window and thought hard.
{name} knew just what to do.

"Please wear this," {he} said. "It always keeps me warm."
{He} tucked the blanket in and read a story about {a animal}.
{He} sat by the bed and sang about the {bugs} by the {place}.

{Soon}, {his} {kin} felt better and drank all the {drink}.
By evening the fever was gone.
-

"The soup was {good}, but your {object} was even better, {name}," said {his} {kin}.
{name} wrapped the {object} around {his} {kin}, and they both slept well.
{His} {kin} gave the {object} back and hugged {name}. "You are {a good} nurse!"

== the broken vase (object: vase, kin: kin)

In the house of {a kind} {boy} named {name} stood {a lovely} {object}. It belonged to {his} {kin}.
{name} was {a kind} {boy}. {His} {kin} owned {a red} {object} and loved it dearly.
Once there was {a lovely} {object} in the hall. "Please do not touch it, {name}," said {his} {kin}.

One {stormy} {morning}, {name} threw a ball indoors. Crash!
On {weekday}, {name} {ran} past it and bumped the table. Crash!
While playing {game}, {name} swung {his} arms too wide. Crash!

There were pieces everywhere. {name} felt {very} {afraid}.
{name} stared at the pieces and {sighed}.
"Oh dear," whispered {name}. "What have I done?"

{He} wanted to hide the pieces {spot}.
{He} swept everything into {a box} and shut it.
"I could say that the {animal} did it," {he} thought.

But {his} tummy hurt. It felt as if {bugs} were crawling inside.
But at {lunch} {he} could not eat a single bite.
But a little voice inside {him} said, "Be honest."

So {he} took a deep breath. "I broke it," {he} said. "I am {very} sorry."
{He} {ran} to {his} {kin} and told the truth.
"It was me," {he} said, and a tear ran down {his} cheek.

{His} {kin} was quiet. "Thank you for telling me," {kin.he} said {softly}.
"I am {sad} about it," said {his} {kin}, "but I am proud of you."
{His} {kin} gave {him} a hug. "The truth is worth more than any treasure."

{name} saved {his} coins and bought a new {object}, and {his} {kin} was {glad}.
They glued the {object} together, and {name} filled it with {flower}.
After that, {name} saw the mended {object} each day and always told the truth.
Together {name} and {his} {kin} made a new {object} out of clay.

== the birthday gift (object: clothing, kin: kin)

{name} was {a kind} {boy} who wanted to make {a red} {object} for {his} {kin}.
It was almost a birthday. {name}, {a kind} {boy}, planned to knit {a red} {object} for {his} {kin}.
"I will make {a lovely} {object} for my {kin}," said {name}, {a kind} {boy} with ten coins.

{He} bought yarn at the market on {weekday}.
{He} emptied {his} piggy bank to pay for the wool.
{He} borrowed needles from the {job} next door.

It was hard work. The wool tangled, and {he} had to start again.
Each night {he} worked in secret {spot}.
{He} pricked {his} finger and {sighed}, but {he} did not stop.

Then the cat ran off with the yarn!
One {stormy} {morning}, {he} saw a big hole in the middle.
{Suddenly}, {he} heard {a sound}. Someone was coming! {He} hid everything {spot}.

"It is not perfect," {he} said. {He} felt {sad}.
"What if nobody likes it?" {he} wondered, feeling {afraid}.
{He} worked until the stars came out.

At last the birthday came, and there were {fruit} and candles.
On the {sunny} birthday {morning}, {name} carried a parcel to the table.
When the guests arrived, {name} stood in the corner, {afraid} to come near.

{His} {kin} opened the paper {softly}. "You made this for me?" {kin.he} said.
"It is the best gift of all," said {his} {kin}, and {kin.he} {laughed}.
{His} {kin} gasped. "It is {good}!" {kin.he} {said}.

{His} {kin} wore the {object} every single day, and {name} was {very} {glad}.
"I made every stitch of the {object} with love," said {name}.
{His} {kin} put on the {object} and danced with {name} until midnight.
"""
