"""Rules that the broker breaks on purpose, by the name of their test, each with the reason. The table shows them."""

DEVIATIONS: dict[str, str] = {
    "test_complete_overrules_follows": (
        "rsocket-cpp, which every Flipper app of the RSocket era carries, repeats the final flags on all fragments: by "
        "this rule its answers would be cut after the first one. C counts where F is clear."
    ),
    "test_the_length_of_a_spelled_out_type_is_its_length": (
        "Every engine in use (Java, JavaScript, Python, Kotlin, Rust) writes the length less one, since no type is "
        "empty: by the letter, none of them could be understood."
    ),
}

LENIENT: tuple[str, ...] = (
    "A stream id below an earlier one is taken when it is free. The rule that ids ascend binds requesters; rsocket-py "
    "numbers a stream when it is made and sends it when it is subscribed to, and ids may wrap round.",
    'A responder\'s CANCEL in a channel is read as "send me no more", and sent for that: the specification lets only '
    "requesters cancel, but the Java, JavaScript and Python engines do it as responders, and without it a requester "
    "would wait for credit for ever.",
    "A request for no items at all (an initial request-n or a REQUEST_N of 0) fails its stream with INVALID, and "
    "a requester that sends more than it was asked for loses its stream the same way. The specification forbids "
    "both and does not say what follows.",
    "A server does not send KEEPALIVE of its own: rsocket-cpp as a client closes the connection when it is asked.",
)
"""Where the specification leaves room, or real peers need some: what the broker does there. The page lists them."""
