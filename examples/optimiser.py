"""An optimiser in sixty lines: follow fresh state, and ask the twin before touching the network.

At every window it looks at the busiest link and asks what would happen if its weight rose to 2, 3 or 5. It
prints the best answer; applying it would be a controller's job. Standard library only; needs `ndtwin up`:

    python examples/optimiser.py --api http://127.0.0.1:8080/api/v1 --windows 3
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

WEIGHTS = (2, 3, 5)
WORTH_IT = 0.01  # a mean delay that falls by less than 1 % is not worth a routing change


def fresh_states(api: str, network: str | None) -> Iterator[dict[str, Any]]:
    """Every window with its prediction, as it closes. To resume after a break send ``Last-Event-ID``."""
    address = f"{api}/stream/state" + (f"?network={network}" if network else "")
    with urllib.request.urlopen(address, timeout=60) as lines:
        for line in lines:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


def what_if(api: str, question: dict[str, Any]) -> dict[str, Any]:
    """Ask the twin; it answers on a copy of the newest state."""
    request = urllib.request.Request(
        f"{api}/whatif", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def best_weight(api: str, state: dict[str, Any]) -> str:
    """One line of advice for one window."""
    busiest = max(state["links"], key=lambda link: link["utilisation"])
    answers = {
        weight: what_if(api, {"network": state["network"], "weights": {busiest["name"]: weight}})
        for weight in WEIGHTS
    }
    weight, answer = min(answers.items(), key=lambda item: item[1]["mean_after_s"])
    gain = 1 - answer["mean_after_s"] / answer["mean_before_s"]
    load = f"window {state['window']['version']}: {busiest['name']} is {busiest['utilisation']:.0%} full"
    if gain < WORTH_IT:
        return f"{load}; no weight of it helps"
    moved = len(answer["rerouted"])
    return f"{load}; weight {weight} would cut the mean delay by {gain:.1%} and move {moved} paths"


def main() -> int:
    """Advise for some windows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--api", default="http://127.0.0.1:8080/api/v1")
    parser.add_argument("--network")
    parser.add_argument("--windows", type=int, default=3, help="how many windows to follow")
    options = parser.parse_args()
    try:
        for _, state in zip(range(options.windows), fresh_states(options.api, options.network), strict=False):
            print(best_weight(options.api, state), flush=True)
    except urllib.error.HTTPError as error:
        print(json.load(error)["detail"], file=sys.stderr)
        return 1
    except OSError as error:
        print(f"no ndtwin answers at {options.api} ({error}): start it with `ndtwin up`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
