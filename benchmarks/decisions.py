"""What the policy costs: one decision among 1, 100 and 1,000 rules, against reading the rules from top to bottom."""

import time
from collections.abc import Callable, Iterator

from measures import Figures, Limit, Outdo, Result, Scale, Workshop, result

from rsocket_broker.policy.grammar import parse
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Facts, Layer, Level, fitting

COUNTS = (1, 100, 1000)
MIXED = ("method", "app", "prefix", "pattern")
"""How rules are told apart in a file that has grown: by method, by app, by plugin, and one in a hundred by neither."""


def rules(count: int) -> Layer:
    """`count` rules as a fleet has them, and the last of them for our call."""
    text = ["version = 1"]
    for number in range(count - 1):
        kind = MIXED[3] if number % 100 == 50 else MIXED[number % 3]
        condition = {
            "method": f'method = ["plugin{number}.get", "plugin{number}.set"]',
            "app": f'app = "com.example.app{number}"\nmethod = "*"',
            "prefix": f'method = "plugin{number}.*"',
            "pattern": f'app = "com.example{number}.*"',
        }[kind]
        text.append(f'[[rule]]\nid = "r{number}"\neffect = "allow"\nproof = "adb"\n{condition}')
    text.append('[[rule]]\nid = "ours"\neffect = "allow"\nmethod = "wifi.*"\napp = "com.example.*"')
    return parse("\n".join(text), "benchmark", Level.OPERATOR).layer


CALL = Facts(app="com.example.app", device="dev1", proof="adb", method="wifi.set")


def nanoseconds(decide: Callable[[], object], times: int) -> Figures:
    began = time.process_time_ns()
    for _ in range(times):
        decide()
    return {"ns": (time.process_time_ns() - began) / times}


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    """In this process: a decision has no wire. A session asks once for each method and then keeps the answer."""
    for count in COUNTS:
        name = f"policy decision, {count:,} rules" if count > 1 else "policy decision, 1 rule"
        if not scale.wants(name):
            continue
        layer = rules(count)
        policy = Policy([layer])
        for answer in (policy.decide(CALL).rule, next(fitting((layer,), CALL))[1]):
            assert answer is not None
            assert answer.id == "ours"
        rounds: dict[str, list[Figures]] = {"broker": [], "plain scan": []}
        for _ in range(scale.rounds):
            rounds["broker"].append(nanoseconds(lambda policy=policy: policy.decide(CALL), scale.amount(20_000)))
            scan = lambda layer=layer: next(fitting((layer,), CALL), None)  # noqa: E731
            rounds["plain scan"].append(nanoseconds(scan, scale.amount(20_000 // (count + 1))))
        reaches = (Limit("ns", 20_000, "ns"), *([Outdo(20, "plain scan", ("ns",))] if count == 1000 else []))
        yield result(name, rounds, reaches)
