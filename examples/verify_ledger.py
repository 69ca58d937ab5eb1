"""Recompute a copy of a ledger with dp-accounting and nothing of privolve: its chain, its charges, each plan's epsilon.

python verify_ledger.py RUN/release/ledger.jsonl: exits 1 at the first fault; the grid leaves 1e-3 of slack."""

import json
import math
import sys
from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path

from dp_accounting import NeighboringRelation
from dp_accounting.pld import privacy_loss_distribution as pld


def epsilon(costs, delta, moved):  # `moved`: how many records' contributions differ, 2 under replace-one
    if any(cost["kind"] == "zero-concentrated" for cost in costs):
        squares = (c.get("cells", 0) / c.get("scale", 1) ** 2 + moved * c.get("epsilon", 0) ** 2 for c in costs)
        rho = sum(c["copies"] * moved * (c.get("rho", 0) * moved + s / 2) for c, s in zip(costs, squares, strict=True))
        orders = [1 + 10 ** (k / 1000) for k in range(-3000, 6000)]
        return max(0.0, min(rho * a + math.log1p(-1 / a) - math.log(delta * a) / (a - 1) for a in orders))
    pure = sum(cost["epsilon"] * cost["copies"] * moved for cost in costs if cost["kind"] == "pure-epsilon")
    pairs = [(c["cells"] * c["copies"], c["scale"]) for c in costs if "scale" in c] or [(1, 5)]
    finest = 5e-4 * math.sqrt(sum(n / s**2 for n, s in pairs) / sum(n for n, _ in pairs))
    grid = {"value_discretization_interval": min(1e-4, finest)}
    total = pld.identity(*grid.values())  # type: ignore[arg-type]
    for text, times in Counter(json.dumps(cost) for cost in costs if cost["kind"] != "pure-epsilon").items():
        if (c := json.loads(text))["kind"] == "discrete-gaussian":
            times *= c["cells"] * c["copies"] * moved
            event = pld.from_discrete_gaussian_mechanism(c["scale"], **grid)  # type: ignore[arg-type]
        else:
            times *= c["steps"]
            near = {"neighboring_relation": NeighboringRelation[{1: "REPLACE_SPECIAL", 2: "REPLACE_ONE"}[moved]]}
            event = pld.from_gaussian_mechanism(c["noise_multiplier"], sampling_prob=c["probability"], **near, **grid)  # type: ignore[arg-type]
        total = total.compose(event.self_compose(times))
    return pure + total.get_epsilon_for_delta(delta * (1 - 1e-12))  # the rest is for the sampler's tails


previous, plans, attempts = "0" * 64, {}, defaultdict(list)
for number, line in enumerate(Path(sys.argv[1]).read_bytes().splitlines(), 1):
    said = (entry := json.loads(line)).pop("hash")
    content = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    kind, run, body, holds = entry["kind"], entry["run"], entry["body"], sha256(content).hexdigest() == said
    holds, previous = holds and (entry["prev"], entry["seq"]) == (previous, number), said
    if kind == "plan":
        holds = holds and not any(old["name"] in attempts for old in plans.get(run, body["plan"])["releases"])
        plans[run] = body["plan"]
    elif kind == "charge":
        holds = holds and {"name": body["name"], "cost": body["cost"]} in plans[run]["releases"]
        attempts[body["name"]].append("open")
    elif kind in ("failed", "release"):
        holds = holds and attempts[body["name"]][body["attempt"] - 1 :] == ["open"]
        attempts[body["name"]][-1] = kind
    holds or sys.exit(f"line {number} ({kind}) does not hold")
for run, plan in plans.items():
    tries = [(name["cost"], (t := attempts[name["name"]]).count("failed"), len(t)) for name in plan["releases"]]
    costs = [c for c, bad, n in tries for _ in range(max(1, bad + min(n - bad, 1) + max(0, n - bad - 3)))]
    found = epsilon(costs, plan["share"]["delta"], 2 if plan["relation"] == "replace-one" else 1)
    print(f"{run} ({plan['partition']}): epsilon {found:.5f} at delta {plan['share']['delta']:g}")
    found <= plan["share"]["epsilon"] * 1.001 or sys.exit(f"{run}: its events cost more than its share")
