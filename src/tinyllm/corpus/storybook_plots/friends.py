"""Plots between children: sharing, quarrels, stage fright, honesty."""

PLOTS = """
== sharing (object: toy, friend: child)

<opening>

One {sunny} {morning}, {friend} came over. "May I play too?" asked {friend}.
On {weekday}, {friend} sat alone on a bench and watched.
At the {place} {he} met {friend}, who had nothing to play with.

"No, it is mine," said {name}, and {he} held it tight.
{name} did not want to share. {He} turned {his} back.
"You might break it," said {name}.

{friend} {sighed} and walked away.
{friend} looked {sad} and said nothing.
"I see," said {friend}, and {friend} went to look at the {flower}.

But playing alone was no fun at all.
{Soon}, {name} was bored. There was nobody to laugh with.
{name} watched the {bugs} for a while. {He} felt {sad}.

Then {name} remembered what {his} {kin} always said. "Joy grows when you share it."
"I was not nice," thought {name}.
{name} thought about it for a long time. Then {he} {ran} after {friend}.

"I am sorry," said {name}. "Come and play with me!"
"Wait!" {name} {said}. "Let us take turns."
"You may go first," {he} said {softly}.

{friend} {laughed}. "Thank you!" said {friend}.
"That is {very} nice of you," said {friend}.
The two of them {laughed} and made up a new game.

<friendly closing>
{name} let {friend} take the {object} home for one night, and sharing felt {good}.

== the new child (object: toy, friend: child)

<opening>

On {weekday} there was a new child at school. "This is {friend}," said the teacher.
A new family moved in by the {landmark}. They had a child called {friend}.
One {sunny} {morning}, {friend} came to school for the first time.

{friend} did not know anyone and felt {very} {afraid}.
{friend} sat alone and looked at the floor.
Nobody talked to {friend}, and {friend} {sighed}.

{name} remembered {his} own first day.
"I know how that feels," thought {name}.
{name} saw this and felt {sad}.

So {name} {ran} over with {a tasty} {treat}. "Are you hungry?" {he} asked.
{name} sat down next to {friend} and said {softly}, "Hello. Do you like {game}?"
"Would you like to see something?" asked {name}.

{friend} nodded {softly}.
"Yes, please," whispered {friend}.
{friend} looked up and smiled a little.

They played {game} and looked for {bugs} under the {tree} tree.
At noon they shared {fruit} and told each other jokes.
{name} showed {friend} the library, the garden and the best hiding places.

"I am not {afraid} anymore," said {friend}.
"Now I have a friend here," said {friend}, feeling {very} {glad}.
"Will you sit with me tomorrow?" asked {friend}.

<friendly closing>
"You can hold my {object} whenever you feel {sad}," {name} told {friend}.

== the quarrel (object: toy, friend: child)

<opening>

{He} had a best friend named {friend}. They did everything together.
{friend} lived next door, and the two were best friends.
Every {morning}, {friend} came to play {game}.

But on {weekday} they both wanted the same thing at once.
One {stormy} {morning} they began to argue.
"Today it is my turn!" said {friend}.

They pulled and pulled until both fell down.
"Give it to me!" {friend} {said}. "No!" {said} {name}.
They shouted so loudly that the {bugs} flew away.

"I will never talk to you again," said {name}.
{friend} ran home and slammed the door.
{name} went home without a word.

But the next day was {very} long and quiet.
At home {name} {sighed}. The house felt empty.
That night {name} could not sleep. {He} felt {sad}.

"A friend is worth more than a toy," said {his} {kin}.
"Who will say sorry first?" asked {his} {kin} {softly}.
{name} baked {a tasty} {treat} and wrapped it in a napkin.

In the morning {name} {ran} to the door, and there stood {friend}!
They met at the {landmark}, both at the same time.
{name} knocked. {friend} opened the door {softly}.

"I am sorry," they both said, and then they {laughed}.
"I missed you," said {friend}. "I missed you too," said {name}.
{friend} held out a hand. "Friends?" "Friends!" {said} {name}.

<friendly closing>

== the talent show (object: instrument, friend: child, job: job)

<opening>

On {weekday} there was a show in the school. Everyone would come, even the {job}.
The town was going to have a talent show, and {name} wanted to play a song.
"You should be in the show," said {friend}, who lived next door.

{name} practiced every {morning} until the {bugs} knew the tune.
{He} practiced at the {place} and {spot}.
{He} practiced so much that {his} {kin} wore earmuffs.

But when {he} saw all the people, {his} knees began to shake.
Behind the curtain {name} felt {very} {afraid}.
When {his} name was called, {he} could not move.

"I cannot do it," {he} told {friend}.
"What if I forget the notes?" {he} asked {friend}.
{He} {sighed} and told {friend} that {he} wanted to go home.

"Look only at me," said {friend}. "Pretend we are alone."
{friend} took {his} hand. "I will stand right beside you," said {friend}.
"Think of the {flower} by the {place}," said {friend} {softly}.

{name} took a deep breath and began to play.
So {he} closed {his} eyes and played the first note.
Step by step {he} went out into the light.

The music was {good}. Even the {job} wiped away a tear.
{Soon}, everybody clapped and stamped their feet.
When the last note faded, the people {laughed} and threw {flower}.

{name} bowed and lifted the {object} high. "This song was for {friend}," {he} said.
"You did it!" {friend} said {merrily}, and {name} hugged the {object}.
{name} won {a red} ribbon and tied it to the {object}. {friend} was {very} {glad}.

== the lost treasure of a stranger (object: treasure, job: job)

<finding>

"It is {good}!" {he} {said}. "Now it is mine."
{He} put it in {his} pocket and {ran} home.
{He} had always wanted one, so {he} kept it.

The next day {he} saw the {job} searching near the {landmark}.
On {weekday} the {job} knocked on every door in town.
At the market the {job} sat on a step and {sighed}.

"I lost something dear to me," said the {job}. "It came from my {kin}."
"Have you seen it?" asked the {job}. "I have looked everywhere."
"It is small and pretty," said the {job}, "and I miss it {very} much."

{name} touched {his} pocket. {He} did not want to give it up.
{name} looked at {his} shoes and felt {sad}.
"Nobody would ever know," thought {name}.

But {he} saw how {sad} the {job} was.
But keeping it did not feel {good} at all.
Then {he} thought, "What if it were mine?"

"Here it is," {he} said {softly}.
So {he} held out {his} hand. "I found it," {he} said.
{He} told the whole story and gave it back.

The {job} {laughed} and shook {his} hand. "You are a good {boy}!"
"Thank you, thank you!" the {job} said {merrily}.
The {job} gave {him} {a tasty} {treat} and a big hug.

{name} no longer had the {object}, but {he} felt {very} {glad}.
"An honest friend is worth more than any {object}," the {job} told {name}.
Later the {job} made another {object} just for {name}.

== the slow friend (object: ride, friend: child, job: job)

<opening>

On {weekday} there was a big race from the {landmark} to the {place}.
All the children wanted to win the race on {weekday}.
"Let us race to the {landmark}," said the other children.

{friend} wanted to race too, but {friend} was {very} slow.
{friend} came as well, on old wheels that went {sound}, {sound}.
"I am too slow to win," said {friend}, feeling {sad}.

The race began, and {name} was soon far ahead.
"Ready, set, go!" called the {job}, and off they went.
{name} raced past the {flower} and past {a tiny} {animal}.

{Suddenly}, {he} heard a cry. {friend} had fallen into a ditch!
Then {he} looked back. {friend} sat in the mud with a scraped knee.
Halfway there, {he} saw {friend} stuck between two rocks.

{name} could see the finish line. {He} stopped and turned around.
"The prize can wait," thought {name}, and {he} went back.
{name} did not think twice. {He} {ran} to help.

"Are you hurt?" {he} asked {softly}.
{He} cleaned the knee with water and tied {his} scarf around it.
"Lean on me," said {name}. "We will go together."

They were the very last, but everyone clapped.
They crossed the line together, and the children laughed and cheered.
The {job} had seen it all and gave them both a prize.

"You are the real winner," said {friend}. {name} patted the {object} and felt {glad}.
{friend} rode home on the {object} with {name}, and they sang {merrily} all the way.
From that day on, {name} let {friend} practice on the {object}.

== the treehouse (object: tool, friend: child, job: job)

{name} was {a kind} {boy} who had {a lovely} {object}. {He} wanted to build a treehouse.
Once upon a time {a kind} {boy} named {name} owned {a red} {object} and had a big dream.
{A kind} {boy} called {name} found {a lovely} {object} in the shed. "We could build a treehouse!" {he} said.

{He} told {friend}, and {friend} loved the plan.
{friend} came to help and brought {a box} of nails.
"I will help you," said {friend}, who was good at drawing.

They found a tall {tree} tree near the {place}.
They chose the old {tree} tree behind the {landmark}.
In the yard stood {a tree} tree with strong branches.

All {morning} they sawed and hammered.
They carried boards and counted the nails.
{friend} held the boards, and {name} hammered.

But the floor was crooked, and the whole thing fell down with {a sound}!
But {a stormy} wind came, and the roof flew off.
{Suddenly}, a board cracked, and {friend} nearly fell.

"We will never finish," said {friend}, feeling {sad}.
They sat in the grass and {sighed}.
"Maybe it is too hard for us," said {friend}.

Then {name} had {a good} idea. They could tie the beams together first.
"Let us ask the {job}," said {name}. The {job} showed them how to do it right.
"Slow and steady," said {name}. They began again, and this time they measured everything twice.

{Soon}, the treehouse stood. They could see the {place} from the top.
By {weekday} it was ready, with {a red} flag on the roof.
At last they climbed up and ate {fruit} above the world.

{name} hung the {object} on the wall, and {friend} {laughed}.
"Without your {object} we could not have done it," {friend} told {name}.
The {object} stayed in the treehouse, and {name} and {friend} met there every {weekday}.

== the market trade (object: treasure, friend: child, job: job)

<opening>

On {weekday} {he} {ran} to the market. It was full of {fruit} and noise.
One {sunny} {morning} {his} {kin} sent {him} to buy {vegetable}.
There was a fair at the {place}. Someone played the {instrument}.

There {he} saw {a red} {toy}. It was so pretty!
{A job} was selling toys. {name} wanted one more than anything.
In the window stood {a lovely} {toy}. {name} could not look away.

"I will trade you for what is in your hand," said the {job}.
"It costs ten coins," said the {job}, "or that pretty thing in your hand."
"Do you have something to swap?" asked the {job}.

Just then {friend} came by, looking {sad}.
Next to {him} stood {friend}, who {sighed}.
{friend} was there as well. "Be careful," said {friend}.

"Think about it first," {friend} said {softly}. "You have had it for a long time."
"I traded my {clothing} for candy once," said {friend}, "and I was sorry for a year."
{friend} asked, "Will you still love the new one tomorrow?"

{name} thought about all {his} old adventures.
{name} looked down, and then {he} shook {his} head.
{name} remembered the day when {he} got it.

"No, thank you," {he} told the {job}.
"Some things are not for sale," said {name}.
"I will keep what I love," {he} said {softly}.

So they bought {a tasty} {treat} instead and shared it.
{friend} {laughed}, and they went to hear someone play the {instrument}.
The {job} smiled. "That is {a good} answer," said the {job}.

{name} held the {object} tight, and {friend} walked home with {him}.
From that day on, the {object} meant even more to {name}.
That night {name} put the {object} {spot} and dreamed of {friend}.

== the wrong guess (object: clothing, friend: child)

<opening>

On {weekday} it was gone from its hook. "Somebody took it!" {name} {said}.
One {stormy} {morning} {he} wanted to put it on, but the hook was empty.
After school {name} could not find it anywhere.

{He} saw {friend} with something soft under one arm.
{friend} was the last one in the room, so {name} blamed {friend}.
"{friend} must have taken it," thought {name}.

"You are a thief!" {he} {said}.
"Give it back right now!" {he} {said}.
{name} pointed {his} finger. "You stole it," {he} said.

"I did not," said {friend}, and {friend} {sighed}.
{friend} turned pale and looked {very} {sad}.
"How can you say that?" asked {friend}, close to tears.

{Soon}, {name} got home. There it was, {spot}!
At home {his} {kin} said, "I washed it for you this {morning}."
Then {name} saw {a tiny} {animal} asleep on it, {spot}.

{name} felt {very} ashamed.
{His} face turned as red as a cherry.
"Oh no," {he} whispered. "I was wrong."

{He} {ran} all the way to the {place} to find {friend}.
{He} picked some {flower} and knocked on a door.
{He} took {a tasty} {treat} and went to say sorry.

"I should have asked first," said {name}. "Please forgive me."
"I am sorry that I did not trust you," {he} said {softly}.
"You are my friend, and I was unfair," said {name}.

{friend} forgave {name} and even helped {him} to button the {object}.
"It is all right," said {friend}. {name} hugged {friend}, and the {object} fell in the grass.
"Let us forget it," said {friend}, and {name} waved the {object} in the air.
{name} let {friend} wear the {object} the whole way home.

== the play (object: clothing, friend: child, job: job, animal: animal)

<opening>

The class was going to put on a play about {a job} and {a tiny} {animal}.
On {weekday} the teacher said, "We will do a play for our families."
There would be a play in the old barn.

{name} hoped to be the hero, but {he} had to be a tree.
{friend} got the best part. {name} was only a talking {animal}.
{name} had just one line to say. {He} {sighed}.

"That is not fair," said {name}.
{He} was {sad} and did not want to go.
"Nobody will even see me," {he} said.

"Every part is important," said {his} {kin}.
"Without the small parts there is no play," {his} {kin} said {softly}.
{His} {kin} said, "Then be the best one that ever was."

On the big day the room was full. The curtain rose with {a sound}.
{A instrument} began to play, and everyone laughed at the funny {job}.
At first all went well. The lights were golden and warm.

{Suddenly}, {friend} forgot the words! It was {very} quiet.
Then a costume tore, and {friend} did not know what to do.
In the middle of a song {friend} began to shake, too {afraid} to speak.

{name} knew every line by heart. {He} whispered the words {softly}.
So {name} stepped forward and made up a joke. Everyone laughed.
{name} {ran} over and stood beside {friend}.

The play was saved, and the people threw {flower}.
{friend} remembered everything, and the show went on.
When it was over, they bowed hand in hand.

"You saved me," said {friend}. {name} took off the {object} and bowed again.
"You were the best of all," {friend} told {name}, and tied {a red} ribbon to the {object}.
{name} threw the {object} into the air, and {friend} {laughed}.
"""
