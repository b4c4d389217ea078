"""The storybook's words: every class that a slot of a plot can draw from.

Classes of things are named by their kind (`toy`, `place`). Classes of adjectives, verbs and adverbs are named by one
of their words (`lovely`, `ran`), so that a plot line reads almost like its story. Any word of a class fits each use of
the class; a word that fits only some uses belongs in another class.

No word of a class is a prefix of another one in it, such as "ice" of "ice cream". So a text has at most one parse.
The classes are small: each word occurs about a hundred times or more in 20,000 stories.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(","))


# There are few names, because a name is repeated most in a story and is the first thing that a small model must copy.
GIRLS = _words("Lily, Mia, Anna, Emma, Lucy, Ruby, Rosa, Nora, Zoe, Clara, Sara, Amy, Molly, Alice, Maya, Priya")

BOYS = _words("Tom, Ben, Max, Sam, Leo, Jack, Tim, Finn, Noah, Luke, Oscar, Hugo, Peter, Toby, Omar, Diego")

# "a ukulele" but "an uncle", "an honest" but "a happy": pronunciation decides, so exceptions are listed.
A_BEFORE_A_VOWEL = frozenset({"ukulele", "unicorn", "unicycle", "useful", "unique"})
AN_BEFORE_A_CONSONANT = frozenset({"honest"})

_LISTS = {
    # People and animals
    "job": """
        baker, farmer, gardener, teacher, doctor, painter, sailor, tailor, fisherman, librarian, carpenter,
        shopkeeper, beekeeper, musician, shepherd, potter, cook, singer, writer, builder, postman, weaver,
        miller, astronaut, inventor, explorer, magician, dancer""",
    "animal": """
        rabbit, squirrel, hedgehog, kitten, puppy, duckling, mouse, turtle, frog, fox, owl, lamb, goat, sparrow,
        robin, badger, otter, deer, pony, goose, beaver, raccoon, mole, chipmunk, toad, swan, crow, piglet,
        calf, hen, donkey, seagull, lizard, weasel, pigeon, hamster""",
    "bird": """
        bluebird, dove, finch, wren, swallow, blackbird, parrot, woodpecker, magpie, lark""",
    "pet": """Biscuit, Pepper, Ginger, Muffin, Patches, Snowy, Buttons, Whiskers, Peanut""",
    "bugs": """
        butterflies, bees, ladybugs, dragonflies, moths, beetles, fireflies, bumblebees, crickets, grasshoppers,
        hummingbirds, sparrows, wasps, chickadees""",
    # Things
    "toy": """
        kite, drum, ball, doll, puppet, robot, teddy, train, top, truck, puzzle, boat, airplane, wagon, rocket,
        whistle, yo-yo, rattle, pinwheel, hoop, jump rope, rag doll, tin soldier, wooden horse, toy lion, toy tiger,
        toy monkey, toy penguin, toy elephant, toy giraffe, toy panda, toy dragon, toy camel, toy car, toy castle,
        music box""",
    "treasure": """
        shell, feather, pebble, coin, key, acorn, button, ribbon, bead, crystal, locket, compass, ring, bell,
        marble, medal, stone, pearl, mirror, lantern, bottle, brooch, thimble, pinecone, necklace, bracelet,
        watch, pendant, spoon, magnet, star, opal""",
    "clothing": """
        scarf, hat, cap, sweater, coat, cape, shawl, jacket, bonnet, cloak, vest, apron""",
    "treat": """
        cookie, muffin, cupcake, pancake, waffle, sandwich, pie, cake, tart, bun, pretzel, doughnut, dumpling,
        pastry, brownie, turnover, scone, pudding, roll, omelet""",
    "instrument": """violin, trumpet, guitar, piano, harp, banjo, accordion, ukulele, cello, flute""",
    "ride": """
        bicycle, scooter, tricycle, unicycle, skateboard, sled""",
    "tool": """
        rope, ladder, shovel, bucket, net, blanket, basket, stick, plank, umbrella, broom, rake""",
    "vase": """vase, cup, bowl, teapot, jar, mug, pitcher, jug""",
    "box": """box, chest, trunk, suitcase, crate, barrel, basket, carton, tub, hamper""",
    "fruit": """
        apples, pears, plums, cherries, peaches, grapes, oranges, lemons, bananas, melons, apricots, figs,
        strawberries, blueberries, raspberries, nuts""",
    "vegetable": """
        carrots, beans, peas, turnips, onions, potatoes, tomatoes, cabbages, pumpkins, radishes, peppers,
        beets, cucumbers, mushrooms""",
    "drink": """lemonade, cocoa, milk, tea, juice, cider, punch""",
    "flower": """
        roses, daisies, tulips, lilies, violets, poppies, sunflowers, daffodils, buttercups, pansies,
        marigolds, bluebells, lavender, clover, irises, snowdrops""",
    "tree": """
        oak, maple, pine, willow, birch, elm, cedar, chestnut, cherry, apple, pear, walnut""",
    # Places and times
    "place": """
        park, meadow, beach, forest, river, lake, garden, field, pond, hill, woods, orchard, farm, playground,
        village, market, valley, stream, harbor, square, canal, schoolyard, vineyard, island, creek,
        pasture, seaside, waterfall, campground""",
    "landmark": """
        mill, well, bakery, church, fountain, barn, windmill, library, tower, lighthouse, school, fence,
        wall, hedge, bench, shed, station, cottage, stable, gate, post office, greenhouse, swing, haystack""",
    "spot": """
        under the bed, behind the sofa, inside the closet, beneath the stairs, on the shelf, under the table,
        behind the curtain, beside the stove, in the cupboard, under the rug, behind the door, near the window,
        in the bathtub, under the pillow, behind the bookcase, on the porch, in the attic, in the cellar,
        under the armchair, in the hallway, behind the mirror, beside the fireplace""",
    "morning": """morning, afternoon, day""",
    "weekday": """Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday""",
    "lunch": """breakfast, lunch, dinner, supper, school""",
    "game": """
        tag, hopscotch, checkers, leapfrog, dominoes, cards, chess, catch, charades, hide-and-seek, pirates,
        knights""",
    "sound": """
        squeak, rustle, thump, rattle, crackle, creak, tap, knock, clatter, bump, swish, click, pop, scratch,
        thud, crunch, jingle, clank""",
    # Adjectives
    "kind": """
        kind, brave, curious, cheerful, clever, gentle, quiet, happy, lively, playful, thoughtful, careful,
        patient, friendly, polite, helpful, honest, funny, shy, silly, bold, sweet, merry, eager, bright, busy,
        dreamy, sensible, hopeful, jolly, adventurous, imaginative, generous, loyal, good-hearted, energetic""",
    "red": """
        red, blue, yellow, green, orange, purple, pink, white, silver, golden, brown, gray, black, violet,
        scarlet, turquoise""",
    "lovely": """
        lovely, little, tiny, shiny, pretty, splendid, special, beautiful, wonderful, painted, striped, spotted,
        sparkly, fancy, charming, unusual, elegant, ordinary, precious, marvelous, colorful, simple, sturdy,
        fine, old, new, amazing, magical, dazzling, handmade""",
    "tiny": """
        tiny, little, small, gray, brown, speckled, scruffy, skinny, sleepy, lonely, friendly,
        shy, timid, funny, hungry, young, plump, dusty, gentle, clumsy, muddy""",
    "sunny": """
        sunny, warm, bright, breezy, clear, mild, cool, fresh, lovely, golden, quiet, beautiful, pleasant,
        peaceful, calm, glorious, perfect, cloudless""",
    "stormy": """
        stormy, rainy, wet, gray, gloomy, chilly, cloudy, dark, windy, misty, foggy, drizzly""",
    "tasty": """
        tasty, delicious, sweet, warm, fresh, yummy, crispy, sugary, buttery, crunchy, fragrant, homemade""",
    "glad": """
        glad, happy, proud, joyful, cheerful, pleased, delighted, thankful, grateful, excited, thrilled, content,
        peaceful, lucky, merry, satisfied""",
    "sad": """
        sad, worried, upset, unhappy, sorry, gloomy, lonely, troubled, miserable, disappointed, heartbroken,
        tearful""",
    "afraid": """
        afraid, scared, nervous, frightened, anxious, timid, uneasy, shaky""",
    "good": """
        good, great, wonderful, fine, splendid, lovely, brilliant, marvelous, super, grand, fantastic,
        excellent, perfect, amazing, delightful""",
    "very": """very, so, quite, truly, really""",
    # Verbs and adverbs
    "ran": """
        ran, walked, skipped, hurried, hopped, marched, raced, dashed, trotted, rushed, galloped, scampered,
        jogged, sprinted""",
    "laughed": """
        laughed, danced, clapped, smiled, giggled, cheered, jumped, twirled, sang, grinned, beamed, chuckled""",
    "sighed": """
        sighed, frowned, sniffled, wept, groaned, pouted, sobbed, trembled""",
    "said": """said, cried, called, exclaimed, shouted, yelled""",
    "softly": """
        softly, kindly, gently, warmly, quietly, sweetly, calmly, politely, tenderly, patiently, slowly,
        thoughtfully, shyly, carefully""",
    "merrily": """
        merrily, brightly, cheerfully, happily, eagerly, gladly, proudly, joyfully, excitedly, loudly""",
    "soon": """
        soon, before long, after a while, in a moment, a little later, after some time, in no time, minutes later""",
    "suddenly": """
        suddenly, just then, all at once, at that moment, all of a sudden, right then, out of nowhere""",
}


_WOMEN = _words("mother, mom, grandmother, grandma, aunt, older sister")
_MEN = _words("father, dad, grandfather, grandpa, uncle, older brother")

WORDS = {kind: _words(text) for kind, text in _LISTS.items()} | {"child": GIRLS + BOYS, "kin": _WOMEN + _MEN}

# The words of these classes that take "she"; their other words take "he". Every other class takes "it".
FEMININE = {"child": frozenset(GIRLS), "kin": frozenset(_WOMEN)}

# Feminine form of each masculine form in a plot.
PRONOUNS = {"he": "she", "his": "her", "him": "her", "himself": "herself", "boy": "girl"}
