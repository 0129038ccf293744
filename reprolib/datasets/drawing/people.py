"""The people of the synthetic datasets: the properties that are the same in every image of a person."""

from dataclasses import dataclass

import numpy as np

from reprolib.datasets.drawing.paint import Rows

# Few colors, so that many people share them: people differ in combinations, patterns, shapes and carried objects.
SKIN = np.array([[0.93, 0.76, 0.66], [0.86, 0.67, 0.54], [0.71, 0.51, 0.38], [0.50, 0.34, 0.25], [0.34, 0.22, 0.17]])
HAIR = np.array([[0.07, 0.06, 0.06], [0.20, 0.13, 0.09], [0.38, 0.23, 0.13], [0.76, 0.60, 0.34], [0.60, 0.59, 0.58]])
CLOTH = np.array(
    [
        [0.11, 0.11, 0.12],  # black
        [0.88, 0.88, 0.86],  # white
        [0.50, 0.51, 0.53],  # gray
        [0.14, 0.19, 0.38],  # navy
        [0.68, 0.14, 0.15],  # red
        [0.77, 0.67, 0.50],  # sand
        [0.32, 0.38, 0.22],  # olive
        [0.46, 0.64, 0.84],  # sky
        [0.85, 0.66, 0.18],  # mustard
        [0.83, 0.50, 0.58],  # rose
    ]
)
CLOTH_SHARE = [0.18, 0.15, 0.13, 0.12, 0.10, 0.08, 0.07, 0.08, 0.04, 0.05]
LIGHT_CLOTH, DARK_CLOTH = [1, 2, 5, 7, 8, 9], [0, 3, 4, 6]
LOWER = np.array([[0.12, 0.12, 0.13], [0.15, 0.19, 0.32], [0.33, 0.45, 0.63], [0.40, 0.40, 0.41], [0.68, 0.59, 0.45]])
SHOES = np.array([[0.08, 0.08, 0.08], [0.90, 0.90, 0.88], [0.36, 0.22, 0.13], [0.65, 0.14, 0.14]])
BAGS = np.array([[0.10, 0.10, 0.11], [0.42, 0.26, 0.15], [0.62, 0.12, 0.13], [0.16, 0.22, 0.42], [0.78, 0.72, 0.60]])

STYLES = np.array(["crop", "bob", "long", "bun", "bald", "cap", "beanie"])
PATTERNS = np.array(["plain", "hoops", "bands", "stripes", "checks", "two-tone", "chest", "logo", "open", "raglan"])
BOTTOMS = np.array(["trousers", "shorts", "skirt", "coat"])  # a coat hangs over trousers, in the upper color
CARRIED = np.array(["nothing", "rucksack", "satchel", "handbag"])


@dataclass(frozen=True)
class People(Rows):
    """Properties of n people; lengths in heights of the person, colors (n, 3) in [0, 1]."""

    shoulder: np.ndarray  # half width
    hip: np.ndarray  # half width
    girth: np.ndarray  # thickness of torso and limbs, about 1
    leg: np.ndarray  # length
    head: np.ndarray  # size, about 1
    skin: np.ndarray
    hair: np.ndarray
    style: np.ndarray  # one of STYLES
    hat: np.ndarray
    upper: np.ndarray
    accent: np.ndarray  # second color of the upper garment
    pattern: np.ndarray  # one of PATTERNS
    short_sleeves: np.ndarray
    scarf: np.ndarray  # whether the person wears one, in the accent color
    bottom: np.ndarray  # one of BOTTOMS
    lower: np.ndarray
    shoes: np.ndarray
    carried: np.ndarray  # one of CARRIED
    bag: np.ndarray
    side: np.ndarray  # +1 or -1: side of the bag


def draw_people(count: int, rng: np.random.Generator) -> People:
    """Draw ``count`` people, independent of one another."""
    slim = rng.random(count) < 0.5  # narrow shoulders, wide hips; more long hair, skirts and handbags

    def either(options, if_slim, if_not):
        return np.where(slim, rng.choice(options, count, p=if_slim), rng.choice(options, count, p=if_not))

    def dye(colors):
        return np.clip(colors + rng.normal(0, 0.02, (count, 3)), 0.03, 0.95)

    def pick(palette, share=None):
        return dye(palette[rng.choice(len(palette), count, p=share)])

    upper = CLOTH[rng.choice(len(CLOTH), count, p=CLOTH_SHARE)]
    accent = np.where(upper.mean(1) < 0.45, rng.choice(LIGHT_CLOTH, count), rng.choice(DARK_CLOTH, count))
    return People(
        shoulder=np.where(slim, 0.076, 0.092) + rng.normal(0, 0.007, count),
        hip=np.where(slim, 0.052, 0.043) + rng.normal(0, 0.005, count),
        girth=np.clip(rng.normal(1, 0.15, count), 0.75, 1.4),
        leg=rng.normal(0.495, 0.014, count),
        head=rng.normal(1, 0.05, count),
        skin=pick(SKIN, [0.3, 0.3, 0.2, 0.12, 0.08]),
        hair=pick(HAIR, [0.3, 0.27, 0.18, 0.15, 0.1]),
        style=either(STYLES, [0.08, 0.22, 0.34, 0.2, 0, 0.08, 0.08], [0.56, 0.06, 0.02, 0.02, 0.1, 0.14, 0.1]),
        hat=pick(CLOTH),
        upper=dye(upper),
        accent=dye(CLOTH[accent]),
        pattern=rng.choice(PATTERNS, count, p=[0.22, 0.1, 0.07, 0.07, 0.1, 0.1, 0.08, 0.1, 0.09, 0.07]),
        short_sleeves=rng.random(count) < 0.45,
        scarf=rng.random(count) < 0.12,
        bottom=either(BOTTOMS, [0.48, 0.12, 0.27, 0.13], [0.68, 0.25, 0, 0.07]),
        lower=pick(LOWER, [0.3, 0.23, 0.2, 0.13, 0.14]),
        shoes=pick(SHOES, [0.42, 0.3, 0.2, 0.08]),
        carried=either(CARRIED, [0.3, 0.22, 0.23, 0.25], [0.42, 0.33, 0.2, 0.05]),
        bag=pick(BAGS),
        side=rng.choice([-1.0, 1.0], count),
    )


def describe(people: People) -> np.ndarray:
    """Describe people by (n, k) float32 with mean 0 and deviation 1: colors of garments, and kinds of things."""
    colors = [people.upper, people.accent, people.lower, people.shoes, people.hair]
    kinds = [(people.pattern, PATTERNS), (people.bottom, BOTTOMS), (people.carried, CARRIED), (people.style, STYLES)]
    answers = np.concatenate(colors + [kind[:, None] == names for kind, names in kinds], axis=1).astype(np.float32)
    return (answers - answers.mean(0)) / answers.std(0).clip(0.05)
