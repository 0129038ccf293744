"""Verdicts: they follow from the margins by which a claim holds; and the scorecard of all claims."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from reprolib import paths
from reprolib.claims import Claim
from reprolib.columns import columns
from reprolib.files import slug
from reprolib.record import RecordError, RunRecord, require_source, write_json

OURS = ("Audit", "Beside")  # the exhibit begins with one of these if the question is ours, not the paper's
VERDICTS = ("reproduced", "partly", "inconclusive", "not reproduced", "not attempted")


def judge(margins: list[float]) -> str:
    """Return the verdict in one column: "reproduced" if the claim holds in every seed, "not reproduced" if in none.

    If the seeds disagree it is "inconclusive", without any run "not attempted".
    """
    if not margins:
        return "not attempted"
    held = sum(map(_holds, margins))
    if held == len(margins):
        return "reproduced"
    return "inconclusive" if held else "not reproduced"


def judge_all(verdicts: Iterable[str]) -> str:
    """Return the verdict over all columns: theirs if they agree, "partly" if some are reproduced and some are not.

    Otherwise, if the seeds of a column disagree, it is "inconclusive".
    """
    found = set(verdicts) or {"not attempted"}
    if len(found) == 1:
        return found.pop()
    return "partly" if {"reproduced", "not reproduced"} <= found else "inconclusive"


def _holds(margin: float) -> bool:
    return round(margin, 9) > 0  # a tie does not hold, regardless of rounding


def verdict(claim: Claim, records: Sequence[RunRecord], *, exhibit: str, expected: str, source: str = "stored") -> None:
    """Print the claim's verdict in each column, and store it for the scorecard.

    Raises:
        ValueError: the stored records give a different verdict than the notebook expects.
    """
    margins = {name: claim.margins(members) for name, members in columns(records).items()}
    labels = {"unit": claim.unit, "over": claim.over}
    conclude(claim.text, margins, **labels, exhibit=exhibit, expected=expected, source=source)


def conclude(
    text: str,
    margins: dict[str, list[float]],
    *,
    exhibit: str,
    expected: str,
    unit: str = "points",
    over: str = "seeds",
    source: str = "stored",
) -> None:
    """Judge a claim by its margins in each column, one per seed; like ``verdict``, for claims without records."""
    require_source(source)
    rows = []
    for name, values in margins.items():
        values = [float(value) for value in values]  # numpy's numbers are not JSON
        if values:
            holds = sum(map(_holds, values))
            rows.append({"column": name, "verdict": judge(values), "margin": round(mean(values), 2)})
            rows[-1] |= {"unit": unit, "holds": holds, "seeds": len(values)}
            rows[-1] |= {"deviation": round(stdev(values), 2)} if len(values) > 1 else {}
    overall = judge_all(row["verdict"] for row in rows)
    print(f"{overall.upper()}: {text}")
    for r in rows:
        seeds = f", holds in {r['holds']} of {r['seeds']} {over}" if r["seeds"] > 1 else f", one {over[:-1]}"
        spread = f" ± {r['deviation']:.{digits(r)}f}" if "deviation" in r else ""
        print(f"  {r['verdict']} on {r['column']}: {r['margin']:+.{digits(r)}f}{spread} {unit}{seeds}")
    if source == "stored" and overall != expected:
        raise ValueError(
            f"the stored records give {overall!r}, but the notebook says {expected!r}; check and correct its text"
        )
    file = paths.VERDICTS / f"{slug(f'{exhibit} {text}')}.json"
    write_json(file, {"exhibit": exhibit, "claim": text, "verdict": overall, "columns": rows})


def digits(row: dict) -> int:
    """Return the number of decimal places to show of the margin in a row of a verdict."""
    return 1 if row["unit"] == "points" else 2 if abs(row["margin"]) < 100 else 0


def conclusions(folder: Path) -> list[dict]:
    """Read every verdict that the notebooks stored in ``folder``: exhibit, claim, verdict, and the columns behind it.

    The claims of the papers come first, then our own questions, which have ``ours`` set.

    Raises:
        RecordError: a file that is not a verdict.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            card = json.loads(file.read_text(encoding="utf-8"))
            if lacking := {"exhibit", "claim", "verdict", "columns"} - card.keys():
                raise ValueError(f"{min(lacking)!r} is missing")
            found.append(card | {"ours": card["exhibit"].startswith(OURS), "file": file})
        except (ValueError, TypeError, AttributeError) as error:
            raise RecordError(f"{file}: not a verdict ({error}); run its notebook again") from error
    return sorted(found, key=lambda card: card["ours"])


def scorecard(folder: Path, *, since: float = 0.0) -> pd.DataFrame:
    """Tabulate the verdicts in ``folder``: one row per claim of the papers or question of our own.

    ``since``: verdicts older than this time, in seconds since the epoch, are left out.
    """
    cards = [card for card in conclusions(folder) if card["file"].stat().st_mtime >= since]
    for card in cards:
        seeds = {}  # by dataset, one entry per network
        for row in card["columns"]:
            seeds.setdefault(row["column"].split(" · ")[0], []).append(str(row["seeds"]))
        card["tried on"] = "; ".join(f"{dataset} ({', '.join(numbers)})" for dataset, numbers in seeds.items())
    return pd.DataFrame(cards, columns=["exhibit", "verdict", "claim", "tried on", "ours"])


def beside_chance(folder: Path) -> pd.DataFrame:
    """Count the verdicts of the papers' claims in ``folder``, and how many chance alone would give on average.

    By chance every margin is positive or negative with equal probability, independently of the others. Claims that rest
    on a single case are left out.
    """
    papers = [card for card in conclusions(folder) if not card["ours"]]
    several = [card for card in papers if sum(row["seeds"] for row in card["columns"]) > 1]
    found, expected = Counter(card["verdict"] for card in several), Counter()
    for card in several:
        unanimous = [0.5 ** row["seeds"] for row in card["columns"]]  # that the claim holds in all seeds of a column
        everywhere = prod(unanimous)
        both_ways = 1 - 2 * prod(1 - p for p in unanimous) + prod(1 - 2 * p for p in unanimous)
        expected.update({"reproduced": everywhere, "not reproduced": everywhere, "partly": both_ways})
        expected["inconclusive"] += 1 - 2 * everywhere - both_ways
    judged = [verdict for verdict in VERDICTS if verdict != "not attempted"]
    return pd.DataFrame({"found": {v: found[v] for v in judged}, "by chance alone": {v: expected[v] for v in judged}})
