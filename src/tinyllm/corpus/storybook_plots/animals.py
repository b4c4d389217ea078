"""Plots with animals, some of which can talk."""

PLOTS = """
== the hungry animal (object: treat, animal: animal, landmark: landmark)

{name} was {a kind} {boy}. On {weekday} {he} took {a tasty} {object} to the {place}.
Once upon a time {a kind} {boy} named {name} bought {a tasty} {object} from the {job}.
"I saved {a tasty} {object} for later," said {name}, {a kind} {boy}, and {he} {ran} outside.

{He} was about to take a bite when {he} heard {a sound}.
{He} sat down under {a tree} tree and unwrapped it.
On the way {he} rested beside the {landmark}.

There sat {a tiny} {animal}. It looked up with big eyes.
Behind {a landmark} hid {a tiny} {animal}. It was {very} thin.
{A tiny} {animal} came out of the bushes and sniffed the air.

"Are you hungry?" {he} asked {softly}.
"I have not eaten since {weekday}," said the {animal}.
The {animal} {sighed}. Its tummy growled.

{name} was hungry too, and for a moment {he} did not know what to do.
"I only have one," thought {name}.
{name} looked at {his} food and then at the {animal}.

Then {he} broke it into two pieces. "Half for you and half for me," {he} said.
"We can share it," said {name}. "That way we are both full."
{He} smiled and held out the bigger half.

The {animal} ate every crumb and {laughed}.
"You are {very} kind," said the {animal}. "I will not forget it."
The {animal} wagged and wiggled and was {very} {glad}.

The next day {name} got lost, and the {animal} showed {him} the way home.
A week later the {animal} brought {him} a heap of {fruit}.
After that they met at the {landmark} every {weekday}.

"It all began with one {object}," said {name}, and the {animal} {laughed}.
From then on, {name} always packed a second {object} for the {animal}.
So {name} learned that half {a tasty} {object} and a friend are better than a whole one.

== the lost baby animal (object: toy, animal: animal, job: job)

<opening>

One {stormy} {morning}, {he} heard {a sound} near the {landmark}. It was a baby {animal}!
On {weekday} {he} met a baby {animal} at the {place}. It was crying.
While {he} picked {flower}, {he} saw a baby {animal} all alone.

"Where is your mother?" {he} asked {softly}.
"I followed the {bugs}, and now I am lost," said the {animal}.
"Please help me," said the {animal}, feeling {afraid}.

{name} let it play with {his} favorite thing until it was calm.
{name} dried its tears and gave it some {drink}.
"Do not cry," said {name}. "I will take you home."

They {ran} to the {place}, but nobody was there.
They asked the {job}. "I saw footprints by the {landmark}," said the {job}.
They looked behind the {landmark} and under the {tree} trees.

They called and called, but only the wind answered.
It grew dark, and the little one {sighed}.
"I am so tired," said the {animal}, so {name} carried it.

{Suddenly}, there was {a sound} behind the {flower}.
{Soon}, they came to a nest of leaves under {a tree} tree.
Then {name} saw two bright eyes between the {vegetable}.

"My child!" {said} the mother, and she {laughed} and cried at once.
It was the mother! She had searched all {morning}.
"Mama!" {said} the {animal}, and it {ran} to her.

The mother thanked {name} and gave {him} {a lovely} {treasure}.
"You have a good heart," said the mother {softly}.
They danced in a circle, and the {bugs} sang along.

{name} went home with the {object} and thought of the {animal} all night.
{name} let the {animal} keep the {object} for a week, so that it would never feel alone.
And every {weekday} {name} brought the {object} and played with the {animal}.

== the little thief (object: treasure, bird: bird)

<opening>

{He} always kept it on the windowsill, where it gleamed in the sun.
One {sunny} {morning} {he} washed it and laid it on the grass to dry.
On {weekday} {he} left it {spot} for just a minute.

When {he} came back, it was gone! Only a black feather lay there.
{Suddenly}, {he} heard {a sound}, and it was gone.
There was a flutter of wings, and then it was gone.

"Who took it?" {name} {said}, feeling {sad}.
{name} {sighed} and picked up the feather. "This is a clue," {he} said.
"I will find the thief," said {name}.

{He} asked the {job}, who pointed at the {tree} trees.
{He} followed the feathers past the {landmark} to the {place}.
{He} looked up at every roof and every branch.

High in {a tree} tree {he} saw a nest, and in it sat {a bird}.
There, on the old {landmark}, sat {a bird} with something bright.
{A bird} hopped out of the {flower}. "I like shiny things," it said.

"That is mine," {he} said {softly}. "Why did you take it?"
"Please give it back," said {name}. "It is dear to me."
"Taking is not the same as asking," said {name}.

The {bird} hung its head. "My nest was so plain," it said.
"I only wanted to make my babies {glad}," said the {bird}.
"I am sorry," said the {bird}. "Nobody ever taught me."

So {name} brought {a red} ribbon and {a lovely} button for the nest.
"Let us trade," said {name}, and {he} gave it a piece of foil.
{name} {laughed}. "I have many {lovely} things at home that you can have."

The {bird} gave back the {object} and sang for {name} every {morning}.
{name} got the {object} back, and the {bird} got the prettiest nest at the {place}.
Now and then the {bird} asks to hold the {object}, and {name} always says yes.

== the stray pet (object: clothing, pet: pet, kin: kin)

<opening>

One {stormy} {morning}, {he} found a stray dog by the {landmark}. It was wet and cold.
On {weekday} a small cat sat in front of the door. It was soaked.
On the way home {he} saw a dog without a collar.

It had a white spot on its ear, and it was {very} {afraid}.
It shivered and {sighed}, and nobody seemed to want it.
"You poor thing," {he} said {softly}.

{name} wrapped it up and carried it home.
"May we keep it?" {name} asked {his} {kin}.
{He} gave it warm {drink} and dried its fur.

"First we must ask if somebody misses it," said {his} {kin}.
{His} {kin} frowned. "It is a lot of work," {kin.he} said.
"Who will feed it and walk it?" asked {his} {kin}.

So they hung up notes at the {landmark} and asked the {job}.
"I will," said {name}. "Every single {morning}."
For a week they waited. {name} hoped and hoped.

But nobody came, and {his} {kin} {laughed}. "Then it is ours," {kin.he} said.
Nobody called. "Well," said {his} {kin}, "what is its name?"
{Soon}, even {his} {kin} loved it. "It may stay," {kin.he} said.

"I will call it {pet}," said {name}.
They named it {pet}, because it liked {fruit}.
"Welcome home, {pet}!" {name} {said}.

{pet} slept {spot} and chased {bugs} all day.
{pet} learned to play {game} and to fetch the mail.
{pet} licked {his} face and was {very} {glad}.

Each night {pet} lay down on the {object}, and {name} did not mind.
The {object} was covered with hair now, but {name} had {pet}, and that was better.
{name} and {pet} ran through the {place}, and the {object} flew in the wind.

== the hurt bird (object: clothing, bird: bird, kin: kin)

<opening>

One {sunny} {morning}, {he} found {a bird} under {a tree} tree. Its wing was hurt.
On {weekday} {a bird} flew against the window and fell into the {flower}.
Near the {landmark} lay {a bird} that could not fly.

"Oh, you poor thing," said {name} {softly}.
{name} knelt down. The {bird} was {very} {afraid}.
The {bird} gave a tiny peep and hid its head.

{He} picked it up in {his} hands and took it home.
{He} wrapped the {bird} in something soft and warm.
{He} made a bed for it in {a box}.

"It needs rest, seeds and water," said {his} {kin}.
{His} {kin} tied a thin stick to the wing. "Now we wait," {kin.he} said.
"Will it fly again?" {name} asked. "If we are patient," said {his} {kin}.

Every {morning} {name} fed it crumbs and bits of {fruit}.
{name} sat beside it after {lunch} and told it stories about {a job}.
At night {name} listened for its breath and felt {sad}.

Days went by. {Soon}, the {bird} began to hop and chirp.
After two weeks it flew from the table to the chair.
One {sunny} {morning} it sang for the first time.

"It is time to let it go," said {his} {kin}.
{name} knew what {he} had to do, and {he} {sighed}.
{name} carried the {bird} to the {place} and opened {his} hands.

The {bird} flew once around {his} head and up into the sky.
"Fly well!" {name} {said}. The {bird} rose over the {tree} trees.
With {a sound} it spread its wings and was gone.

In spring the {bird} came back and built a nest in the old {object}. {name} was {very} {glad}.
All that {name} had left was a feather on {his} {object}, but the {bird} sang for {him} every {morning}.
{name} put on the {object} and waved until the {bird} was a dot in the sky.

== the deep mud (object: tool, animal: animal)

<opening>

One {stormy} {morning} {he} heard a cry from the {place}. "Help! Help!"
On {weekday} it rained so hard that the whole {place} turned to mud.
After the rain {name} {ran} to the {place} to look for {bugs}.

{A tiny} {animal} was stuck in the mud, up to its neck.
There {he} saw {a tiny} {animal}. It could not move its legs.
In the middle of a deep puddle sat {a tiny} {animal}.

"I wanted to eat the {vegetable}, and now I am sinking," said the {animal}.
"Please pull me out," said the {animal}, feeling {very} {afraid}.
The {animal} {sighed}. "Nobody is strong enough," it said.

{name} pulled with both hands, but {he} slipped and sat down. Splash!
First {name} reached out a hand, but {he} was too far away.
{A job} came by and pulled too, but it did not help.

"Hold still," said {name}. "I know what to do."
Then {name} had {a good} idea and {ran} home.
{name} looked around. "I will be right back," {he} said {softly}.

"Hold on tight!" {he} {said}. "One, two, three!"
{He} pushed from one side, and the {animal} kicked from the other.
"Do not be {afraid}," said {name}. "Slowly now."

Pop! Out it came, like a cork from a bottle.
{Soon}, the {animal} was free, and both were brown from head to toe.
With one last pull they both flew into the {flower}.

"Thank you," said the {animal}. "You are {very} brave."
They looked at each other and {laughed}.
They washed in a stream and ate {fruit} together.

{name} cleaned the {object}, and the {animal} carried it home for {him}.
"This {object} is the best of all," said {name}, and the {animal} {laughed}.
From that day on, the {animal} greeted {name} and {his} {object} every {weekday}.

== the kitten on the roof (object: tool, pet: pet)

{name} was {a kind} {boy} who had {a lovely} {object} and a small cat called {pet}.
Once upon a time {a kind} {boy} named {name} lived with a cat called {pet}. In the shed {he} kept {a red} {object}.
In a house near the {place} lived {name}, {a kind} {boy} with {a lovely} {object} and a cat called {pet}.

One {sunny} {morning}, {pet} chased {a bird} up to the roof.
On {weekday}, {pet} climbed up {a tree} tree to look at the {bugs}.
{pet} ran away from a big dog and jumped on top of the {landmark}.

Up was easy, but down was hard. {pet} was {very} {afraid}.
Then {pet} looked down and gave a cry.
"Meow!" cried {pet}. It did not dare to move.

"Come down, {pet}!" {name} {said}.
{name} called and called. {He} held up a piece of fish.
"Do not be {afraid}," {name} said {softly}.

But {pet} only shook its head.
But {pet} climbed even higher.
But {pet} closed its eyes and {sighed}.

The {job} came to help but could not reach it.
{His} {kin} wanted to call the firemen.
All the neighbors came. "Poor {pet}!" they said.

Then {name} remembered what was in the shed.
"I have {a good} idea," said {name}, and {he} {ran} to the shed.
{name} thought hard. "I know what we need!" {he} {said}.

Step by step {he} climbed, and {he} did not look down.
{He} made a bridge, and {pet} came across, one paw at a time.
{He} held it up high, and {pet} put out one paw, then two.

{Soon}, {pet} was safe in {his} arms.
At last {pet} jumped right on {his} shoulder, and everyone {laughed}.
-

{name} put the {object} back, and {pet} purred all evening.
"You and your {object} saved the day, {name}," said the neighbors, and {pet} purred.
Now {pet} stays on the ground and sleeps beside the {object}, and {name} is {glad}.

== the music in the forest (object: instrument, animal: animal, kin: kin)

<opening>

One {sunny} {morning} {he} went into the forest to play where nobody could hear.
On {weekday} {he} sat down under {a tree} tree and began to play.
{He} played so loudly at home that {his} {kin} sent {him} to the {place}.

{Suddenly}, {he} heard {a sound}. {A tiny} {animal} was listening.
When {he} stopped, {a tiny} {animal} peeked out of the {flower}.
{A tiny} {animal} came closer and closer.

"Please do not stop," said the {animal}. "It is {good}!"
"I have never heard anything so beautiful," said the {animal}.
"Can you teach me?" asked the {animal} {softly}.

"I make too many mistakes," said {name}, feeling {sad}.
{name} blushed. "At home they cover their ears," {he} said.
"I am too {afraid} to play for people," said {name}.

"We do not count mistakes here," said the {animal}.
"Then play for us," said the {animal}, and it called the {bugs}.
"Birds do not ask if they may sing," said the {animal}.

So {name} played, and the {animal} drummed on {a box}.
{name} played a song about {fruit}, and the {animal} danced.
They made music all {morning}, and even the {tree} trees seemed to dance.

{Soon}, the whole forest sang along.
{Soon}, {he} forgot to be {afraid} and played better than ever.
{name} learned that music likes to be shared.

The next week {he} played for {his} {kin}, who {laughed}.
On {weekday} {he} played at the {landmark}, and the {job} cheered.
-

<closing>
And when {name} played the {object} at home, the {animal} sat under the window.
{name} waved the {object}, and the {animal} waved back from the trees.

== the three wishes (object: treasure, animal: animal)

<finding>

When {he} rubbed it, there was a puff of {red} smoke, and out came {a animal}!
{He} picked it up, and {a tiny} {animal} jumped out from behind it.
{Suddenly}, a voice said, "Be careful with that!" It was a talking {animal}.

"I am a magic {animal}," it said. "You have one wish."
"Thank you for setting me free," said the {animal}. "Make a wish!"
"Whoever finds it may make a wish," said the {animal} {softly}.

"I wish for a mountain of {fruit}!" {name} {said}.
"I wish that I were {a job}," said {name}.
"I wish for a hundred {bugs}," {name} {said}.

There was {a sound}, and the wish came true at once.
The {animal} snapped its toes, and it was done.
"As you like," said the {animal}, and it blew three times.

But {soon} {name} had enough of it. It was not fun alone.
At first it was {good}, but then {he} felt {sad}.
It was too much! {name} did not know what to do with it.

"What do you wish for?" {he} asked the {animal}.
"Do you never get a wish?" asked {name} {softly}.
{He} saw that the {animal} was {sad}. "What is wrong?" {he} asked.

"Nobody ever asked me that," said the {animal}. "I would like a friend."
The {animal} {sighed}. "I am {very} lonely," it said.
"I wish that someone would play {game} with me," said the {animal}.

"That is easy," said {name}. "You do not need magic for that."
{name} {laughed}. "I will be your friend," {he} said.
"Come home with me," said {name}. "There will be warm {drink}."

They played {game} until the stars came out.
And that was the best wish of all.
-

{name} kept the {object}, but {he} never made a wish again. {He} had the {animal}.
The {animal} went to sleep inside the {object}, and {name} was {very} {glad}.
"My {object} is empty now," said {name}, "because my friend the {animal} lives with me."

== the proud animal (object: treasure, animal: animal)

<opening>

At the {place} {he} met {a tiny} {animal} that was {very} proud.
One {sunny} {morning}, {a animal} blocked {his} way.
On {weekday} {he} met {a animal} with its nose in the air.

"I am faster and smarter than anyone," said the {animal}.
"Give me that," said the {animal}. "Fine things belong to me."
"I bet that I can beat you," said the {animal}.

"Then answer my riddle," said {name}. "What gets bigger when you share it?"
"Let us see," said {name}. "What has a neck but no head?"
"I have a riddle for you," said {name}. "What goes up but never comes down?"

The {animal} thought and thought. It scratched its ear.
"Easy!" {said} the {animal}. But it could not find the answer.
The {animal} walked in circles around {a tree} tree and mumbled.

It asked the {bugs}, but they only {laughed}.
It asked the {job}, who shook {a box} of {vegetable} and said nothing.
It looked for the answer behind the {landmark}.

At last it {sighed}. "I do not know," it said.
"I give up," said the {animal}, feeling {sad}.
{Soon}, the {animal} sat down. "Maybe I am not so smart," it said.

"Nobody knows everything," said {name} {softly}.
"It is all right," said {name}. "I did not know it either, until my {kin} told me."
{name} sat down next to it. "We can find out together," {he} said.

The {animal} smiled. From then on it was kind and gentle.
"You are {a good} teacher," said the {animal}.
They shared {a tasty} {treat} and told riddles until noon.

{name} let the {animal} look at the {object}, and they became friends.
"You may hold my {object} now," said {name}, and the {animal} {laughed}.
{name} tied the {object} around the neck of the {animal}, and it was proud in a better way.
"""
