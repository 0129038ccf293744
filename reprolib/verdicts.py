"""What follows from by how much a claim holds: its verdict, and the scorecard of all."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import pandas as pd

from reprolib import paths
from reprolib.claims import Claim, columns
from reprolib.files import slug
from reprolib.record import RecordError, RunRecord, require_source, write_json

OURS = ("Audit", "Beside")  # so the exhibit begins where the question is ours, not a paper's


def judge(margins: list[float]) -> str:
    """Reproduced: it holds in every seed; partly: in half or more and on average; else not; not attempted: no run."""
    if not margins:
        return "not attempted"
    held = sum(map(_holds, margins))
    if held == len(margins):
        return "reproduced"
    return "partly" if 2 * held >= len(margins) and _holds(mean(margins)) else "not reproduced"


def _holds(margin: float) -> bool:
    return round(margin, 9) > 0  # a tie does not, however it is rounded


def verdict(claim: Claim, records: Sequence[RunRecord], *, exhibit: str, expected: str, source: str = "stored") -> None:
    """Print the claim's verdict in each column, and keep it for the scorecard.

    Raises:
        ValueError: the stored records give another verdict than the notebook expects.
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
    """The verdict on a claim from its margins in each column, one a seed; as ``verdict`` for claims without records.

    Over several columns it is theirs if they agree, else partly.
    """
    require_source(source)
    rows = []
    for name, values in margins.items():
        if values:
            holds = sum(map(_holds, values))
            rows.append({"column": name, "verdict": judge(values), "margin": round(mean(values), 2)})
            rows[-1] |= {"unit": unit, "holds": holds, "seeds": len(values)}
    found = {row["verdict"] for row in rows} or {"not attempted"}
    overall = found.pop() if len(found) == 1 else "partly"
    print(f"{overall.upper()}: {text}")
    for r in rows:
        seeds = f", holds in {r['holds']} of {r['seeds']} {over}" if r["seeds"] > 1 else f", one {over[:-1]}"
        amount = f"{r['margin']:+.1f}" if unit == "points" else f"{r['margin']:+.2f}"
        print(f"  {r['verdict']} on {r['column']}: {amount} {unit}{seeds}")
    if source == "stored" and overall != expected:
        raise ValueError(
            f"the stored records give {overall!r}, the notebook says {expected!r}: read it anew, then mend it"
        )
    file = paths.VERDICTS / f"{slug(f'{exhibit} {text}')}.json"
    write_json(file, {"exhibit": exhibit, "claim": text, "verdict": overall, "columns": rows})


def conclusions(folder: Path) -> list[dict]:
    """Every verdict that the notebooks left in ``folder``: exhibit, claim, verdict, and the columns it rests on.

    The papers' claims come first, then the questions of our own, which say so in ``ours``.

    Raises:
        RecordError: a file that is no verdict.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            card = json.loads(file.read_text(encoding="utf-8"))
            if lacking := {"exhibit", "claim", "verdict", "columns"} - card.keys():
                raise ValueError(f"without {min(lacking)}")
            found.append(card | {"ours": card["exhibit"].startswith(OURS), "file": file})
        except (ValueError, TypeError, AttributeError) as error:
            raise RecordError(f"{file}: not a verdict ({error}); run its notebook again") from error
    return sorted(found, key=lambda card: card["ours"])


def scorecard(folder: Path, *, since: float = 0.0) -> pd.DataFrame:
    """Every verdict that the notebooks left in ``folder``, on what data with how many seeds, and whether it is ours.

    ``since``: seconds since the epoch; what was concluded before is left out.
    """
    cards = [card for card in conclusions(folder) if card["file"].stat().st_mtime >= since]
    for card in cards:
        seeds = {}  # by dataset, of each network
        for row in card["columns"]:
            seeds.setdefault(row["column"].split(" · ")[0], []).append(str(row["seeds"]))
        card["tried on"] = "; ".join(f"{dataset} ({', '.join(numbers)})" for dataset, numbers in seeds.items())
    return pd.DataFrame(cards, columns=["exhibit", "verdict", "claim", "tried on", "ours"])
