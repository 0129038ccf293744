"""A person made of about fifty round solids on a walking skeleton, and the function that paints it.

One unit is the height of the person; x points to the person's left, y up, z ahead. The solids are rotated and painted
from far to near, so that every view has its own features: a logo in front, a rucksack behind, a handbag on one side.
"""

import numpy as np

from reprolib.datasets.drawing.paint import Poses, Solids, paint_solids
from reprolib.datasets.drawing.people import People

CHUNK = 8  # images painted together; neighbors share a pose, so that the window around a solid stays small
TORSO = 0.31  # from the hips to the neck


def _at(x, y, z) -> np.ndarray:
    """Return points (n, 3) from coordinates that are (n,) or single numbers."""
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1)


def _add_legs(solids: Solids, people: People, poses: Poses) -> np.ndarray:
    """Add legs, shoes, skirt and coat tails; return the hip height (n,), with the lower foot on the ground."""
    half = (people.leg - 0.035) / 2  # thigh, and shin
    legs = []
    for side, phase in ((1, poses.phase), (-1, poses.phase + np.pi)):
        swing = poses.swing * np.sin(phase)
        shin = swing - 0.06 - 1.3 * poses.swing * np.maximum(0, np.cos(phase))  # the knee bends as the leg swings ahead
        hip = _at(side * (people.hip + 0.004), 0, 0)
        knee = hip + _at(0, -half * np.cos(swing), half * np.sin(swing))
        ankle = knee + _at(0, -half * np.cos(shin), half * np.sin(shin))
        toe = ankle + _at(side * 0.012, -0.02 + 0.05 * shin, 0.062)
        legs.append(np.stack([hip, knee, ankle, toe]))
    height = 0.035 - np.minimum(legs[0][2, :, 1], legs[1][2, :, 1])
    legs = [leg + _at(0, height, 0) for leg in legs]
    skirt, shorts = (people.bottom[:, None] == name for name in ("skirt", "shorts"))
    for hip, knee, ankle, toe in legs:
        thick = 0.042 * people.girth
        solids.add(ankle, toe, 0.025, people.shoes, end_radius=0.019)
        shin_color = np.where(skirt | shorts, people.skin, people.lower)
        solids.add(knee, ankle, 0.036 * people.girth, shin_color, end_radius=0.026)
        solids.add(hip, knee, 1.3 * thick, np.where(skirt, people.skin, people.lower), end_radius=thick)
    _add_skirt(solids, people, legs[0][:2], legs[1][:2])
    return height


def _add_skirt(solids: Solids, people: People, left: np.ndarray, right: np.ndarray) -> None:
    """Add a skirt or coat tails: three panels from the hips that follow the knees; both legs are (2, n, 3)."""
    for garment, color, length in (("skirt", people.lower, 0.8), ("coat", people.upper, 1.0)):
        for side, (hip, knee) in ((1, left), (-1, right), (0, (left + right) / 2)):
            hem = hip + length * (knee + _at(side * 0.03, 0, 0) - hip)
            worn = people.bottom == garment
            cloth = {"shown": worn, "printed": garment == "coat", "relief": 0.4, "nearer": 0.09}
            solids.add(hip, hem, 0.06, color, end_radius=0.062, **cloth)


def _add_torso(solids: Solids, people: People, poses: Poses, hip: np.ndarray) -> None:
    """Add the hips and the upper garment with its logo or open front."""
    neck, deep = hip + TORSO, 0.075 * people.girth
    solids.add(_at(-people.hip, hip, 0), _at(people.hip, hip, 0), 0.058 * people.girth, people.lower)
    # A capsule is as wide as it is deep but a torso is not, so its radius depends on the view.
    front, aside = np.cos(poses.yaw), np.sin(poses.yaw)
    waist = np.hypot((people.hip + 0.04 * people.girth) * front, 0.95 * deep * aside)
    chest = np.hypot((people.shoulder + 0.022) * front, 1.03 * deep * aside)
    cloth = {"color": people.upper, "printed": True, "nearer": 0.04}
    solids.add(_at(-people.hip, hip + 0.025, 0), _at(people.hip, hip + 0.025, 0), 0.75 * deep, relief=0.3, **cloth)
    solids.add(_at(0, hip + 0.07, 0), _at(0, neck - 0.115, 0), waist, end_radius=chest, relief=0.5, **cloth)
    for x in (people.shoulder, -people.shoulder):
        solids.add(_at(0, neck - 0.024, 0), _at(x, neck - 0.048, 0), 0.034, end_radius=0.045, relief=0.3, **cloth)
    z = 0.065
    solids.add(_at(0, hip, z), _at(0, neck - 0.05, z), 0.03, people.accent, shown=people.pattern == "open")
    y = neck - 0.11
    solids.add(_at(-0.03, y, z), _at(0.03, y, z), 0.03, people.accent, shown=people.pattern == "logo")


def _add_arms(solids: Solids, people: People, poses: Poses, neck: np.ndarray) -> np.ndarray:
    """Add the arms; return the position (n, 3) of the hand on the side of the bag."""
    raglan, short = people.pattern == "raglan", people.short_sleeves
    sleeve = np.where(raglan[:, None], people.accent, people.upper)
    cuff = np.where(short[:, None], people.skin, sleeve)
    hands = []
    for side, phase in ((1, poses.phase), (-1, poses.phase + np.pi)):
        swing = -0.85 * poses.swing * np.sin(phase)  # opposite to the leg
        bend = swing + 0.2 + 0.5 * poses.swing
        shoulder = _at(side * (people.shoulder + 0.018), neck - 0.045, 0)
        elbow = shoulder + _at(side * 0.026, -0.155 * np.cos(swing), 0.155 * np.sin(swing))
        hand = elbow + _at(side * 0.004, -0.15 * np.cos(bend), 0.15 * np.sin(bend))
        solids.add(elbow, hand, 0.027 * people.girth, cuff, end_radius=0.021, printed=~short & ~raglan)
        thick = 0.029 * people.girth
        solids.add(shoulder, elbow, 1.25 * thick, sleeve, end_radius=thick, printed=~raglan)
        solids.add(hand, hand - _at(0, 0.018, 0), 0.021, people.skin)
        hands.append(hand)
    return np.where(people.side[:, None] > 0, *hands)


def _add_head(solids: Solids, people: People, neck: np.ndarray) -> None:
    """Add neck, face and scarf."""
    face, skull = neck + 0.105, 0.05 * people.head  # height of the middle of the face; radius
    solids.add(_at(0, neck - 0.02, 0), _at(0, face - 0.03, 0), 0.025, people.skin, nearer=0.02)
    chin, brow = _at(0, face - 0.02, 0.004), _at(0, face + 0.015, 0)
    solids.add(chin, brow, 0.88 * skull, people.skin, end_radius=skull, nearer=0.02)
    for x in (-0.019, 0.019):
        eye = _at(x, face + 0.004, 0.044)
        solids.add(eye, eye, 0.0065, [0.12, 0.08, 0.07], nearer=0.03)
    mouth = _at(0.009, face - 0.032, 0.042)
    solids.add(mouth * [-1, 1, 1], mouth, 0.004, 0.65 * people.skin, nearer=0.03)
    scarf = _at(0.02, neck - 0.005, 0.012)
    solids.add(scarf * [-1, 1, 1], scarf, 0.032, people.accent, shown=people.scarf, nearer=0.05)


def _add_hair(solids: Solids, people: People, neck: np.ndarray) -> None:
    """Add hair, cap or beanie."""
    face, skull = neck + 0.105, 0.05 * people.head
    long, cap = people.style == "long", people.style == "cap"
    hat, loose = cap | (people.style == "beanie"), long | (people.style == "bob")
    hair = {"color": people.hair, "shown": people.style != "bald"}
    solids.add(_at(0, face - 0.008, -0.022), _at(0, face + 0.012, -0.02), 0.95 * skull, nearer=0.01, **hair)
    for x, z in ((0.018, 0), (0, 0.02)):  # the crown, crosswise
        solids.add(_at(-x, face + 0.041, -z - 0.004), _at(x, face + 0.041, z - 0.004), 0.033, nearer=0.03, **hair)
    hair["shown"] = loose
    for side in (1, -1):
        tip = face - np.where(long, 0.1, 0.05)
        solids.add(_at(side * 0.042, face + 0.02, -0.008), _at(side * 0.047, tip, -0.012), 0.018, nearer=0.03, **hair)
    tip = face - np.where(long, 0.16, 0.05)
    solids.add(_at(0, face, -0.03), _at(0, tip, -0.045), 0.046, nearer=0.02, **hair)
    bun = _at(0, face + 0.045, -0.06)
    solids.add(bun, bun, 0.027, people.hair, shown=people.style == "bun", nearer=0.02)
    top = _at(0, face + 0.036, -0.01)
    solids.add(top, top, 1.05 * skull, people.hat, shown=hat, nearer=0.05)
    brim = _at(0.024, face + 0.03, 0.065)
    solids.add(brim * [-1, 1, 1], brim, 0.012, 0.8 * people.hat, shown=cap, nearer=0.03)


def _add_bag(solids: Solids, people: People, hip: np.ndarray, hand: np.ndarray) -> None:
    """Add a rucksack with straps, a satchel with a belt across the chest, or a handbag."""
    neck, back = hip + TORSO, -0.085 * people.girth - 0.02
    pack = {"color": people.bag, "shown": people.carried == "rucksack"}
    solids.add(_at(0, hip + 0.09, back), _at(0, neck - 0.085, back), 0.075, end_radius=0.068, nearer=0.02, **pack)
    for side in (1, -1):
        strap = _at(side * 0.06, neck - 0.02, 0.03), _at(side * 0.066, neck - 0.16, 0.07)
        solids.add(*strap, 0.0125, nearer=0.04, **pack)
    pocket, pack["color"] = _at(0.025, hip + 0.1, back - 0.03), 0.7 * people.bag
    solids.add(pocket * [-1, 1, 1], pocket, 0.035, nearer=0.03, **pack)
    satchel = {"color": people.bag, "shown": people.carried == "satchel"}
    x = people.side * (people.hip + 0.05)
    for z in (0.075, -0.075):
        solids.add(_at(-0.06 * people.side, neck - 0.01, 0.5 * z), _at(x, hip + 0.05, z), 0.011, nearer=0.03, **satchel)
    x = people.side * (people.hip + 0.075)
    solids.add(_at(x, hip + 0.01, -0.045), _at(x, hip + 0.01, 0.035), 0.05, nearer=0.02, **satchel)
    handbag = people.carried == "handbag"
    solids.add(hand - _at(0, 0.02, 0), hand - _at(0, 0.065, 0), 0.012, 0.8 * people.bag, shown=handbag)
    for drop, radius in ((0.085, 0.026), (0.115, 0.034)):
        solids.add(hand - _at(0, drop, 0.04), hand - _at(0, drop, -0.04), radius, people.bag, shown=handbag)


def _pattern(name: np.ndarray, x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return the share of the accent color, (n, H, W) in [0, 1]; x, y and pixel are in heights of the person."""

    def wave(t, period):
        return np.clip(0.5 + period / (2 * np.pi * pixel) * np.sin(2 * np.pi * t / period), 0, 1)

    patterns = {
        "hoops": wave(y, 0.075),
        "bands": wave(y, 0.15),
        "stripes": wave(x, 0.07),
        "checks": (wave(x, 0.075) + wave(y, 0.075)) / 2,
        "two-tone": np.clip((0.66 - y) / pixel, 0, 1),
        "chest": np.clip(0.5 + (0.035 - abs(y - 0.69)) / pixel, 0, 1),
    }
    name = name[:, None, None]
    return np.select([name == key for key in patterns], list(patterns.values()), 0).astype(np.float32)


def dress(people: People, poses: Poses) -> Solids:
    """Return all solids of n people in n poses."""
    solids = Solids(len(poses.yaw))
    hip = _add_legs(solids, people, poses)
    neck = hip + TORSO
    _add_torso(solids, people, poses, hip)
    hand = _add_arms(solids, people, poses, neck)
    _add_head(solids, people, neck)
    _add_hair(solids, people, neck)
    _add_bag(solids, people, hip, hand)
    return solids


def paint_people(canvas: np.ndarray, people: People, poses: Poses) -> None:
    """Paint one person and its shadow into each of n images, ``canvas`` (n, 3, H, W) float32 in [0, 1], in place."""
    solids = dress(people, poses).project(poses)
    height, width = canvas.shape[2:]
    for first in range(0, len(canvas), CHUNK):
        rows = slice(first, first + CHUNK)
        pose = poses.take(rows)
        x = (np.arange(width) + 0.5) / height - pose.x[:, None, None]
        y = pose.ground[:, None, None] - (np.arange(height)[:, None] + 0.5) / height
        shadow = 1 - 0.4 * np.exp(-((x / 0.16) ** 2) - (y / 0.022) ** 2)
        canvas[rows] *= shadow[:, None].astype(np.float32)
        scale = pose.scale[:, None, None]
        pattern = _pattern(people.pattern[rows], x / scale, y / scale, 1 / height / scale)
        paint_solids(canvas[rows], solids.take(rows), pattern=pattern, accent=people.accent[rows], light=pose.light)
