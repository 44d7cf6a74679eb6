"""Measures one checkout of the library. ``compare.py`` starts one such process for each checkout.

Its arguments are the checkout and, as JSON, the effort; its standard streams are the control pipe.
It prints, as JSON, the file that it imported the library from; then, for each line, which is a
request, the answer to it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from harness import WORKLOADS, Effort, Receiver, allowed_connections, measure_once, turns


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def measure(
    receiver: Receiver, effort: Effort, family: str, workload: str, peer: str, count: int | None
) -> dict[str, Any]:
    """Do it once; without ``count``, find out how often it is to be done, and do not measure."""
    from peers import PEERS  # noqa: PLC0415 - this imports the library, which has to be found first

    (what,) = (one for one in WORKLOADS if one.name == workload)
    (by,) = (one for one in PEERS if one.name == peer and one.family.value == family)
    if count is None:
        return {"count": turns(receiver, what, by, effort)}
    measure_once(receiver, what, by, 1)  # imports and other first-time costs are not measured
    run = measure_once(receiver, what, by, count)
    return {"seconds": run.seconds / count, "cpu_seconds": run.cpu_seconds / count}


def main() -> None:
    # Behind the folder of these scripts, before every place where the library may be installed.
    sys.path.insert(1, sys.argv[1])
    effort = Effort(*json.loads(sys.argv[2]))

    import costs  # noqa: PLC0415 - this imports the library, too

    import trio_asyncwrite  # noqa: PLC0415

    allowed_connections(effort)  # before the receiver starts, which inherits the limit
    with Receiver() as receiver:
        say(trio_asyncwrite.__file__)
        for line in sys.stdin:
            request = json.loads(line)
            if request == "memory":
                say(costs.our_memory(effort.idle_connections))
            else:
                say(measure(receiver, effort, **request))


if __name__ == "__main__":
    main()
