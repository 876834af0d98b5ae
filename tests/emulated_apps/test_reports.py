"""The shapes of CrashReporter, Navigation and LeakCanary."""

from emulated_apps import NO_REPLY, CrashReporter, LeakCanary, Navigation, Platform
from tests.emulated_apps.heard import listen


def test_a_crash_is_told_with_its_call_stack() -> None:
    crashes = CrashReporter()
    assert not crashes.report("java.lang.Error")  # nobody listens: it is lost
    events = listen(crashes)
    crashes.report("java.lang.IllegalStateException", "boom", ["a.B.c(B.java:10)", "d.E.f(E.java:1)"])
    crashes.report("java.lang.Error")
    assert events == [
        (
            "crash-report",
            {
                "callstack": "a.B.c(B.java:10)\n\tat d.E.f(E.java:1)",
                "name": "java.lang.IllegalStateException: boom",
                "reason": "boom",
            },
        ),
        ("crash-report", {"callstack": "", "name": "java.lang.Error"}),
    ]


def test_visits_are_told_once_somebody_listens() -> None:
    navigation = Navigation(clock=lambda: 1718006400.0)
    navigation.go("myapp://lost")
    events = listen(navigation)
    navigation.go("myapp://cart?id=3", "org.example.CartActivity")
    navigation.go(None)
    date = "Mon Jun 10 08:00:00 UTC 2024"
    assert events == [
        ("nav_plugin_active", {}),
        ("nav_event", {"uri": "myapp://cart?id=3", "class": "org.example.CartActivity", "date": date}),
        ("nav_event", {"date": date}),
    ]
    assert navigation.call("greet", {}) == {"greeting": "Hello"}
    assert Navigation(Platform.IOS).receivers() == {}


def test_leaks_come_all_together_each_time() -> None:
    leaks = LeakCanary()
    leaks.found("Cart", "Application", "Cart")
    events = listen(leaks)
    leaks.found("Cart", "Application", "Cart")
    leaks.found("Page", "Page", retained="120 bytes")
    assert [(name, len(params["leaks"])) for name, params in events] == [("reportLeak2", 1), ("reportLeak2", 2)]
    first = events[0][1]["leaks"][0]
    assert first["title"] == "Cart"
    root = first["elements"][first["root"]]
    (child,) = root["children"]
    assert first["elements"][child]["attributes"] == [{"name": "leaking", "value": "Y"}]
    assert leaks.call("clear", {}) is NO_REPLY
    leaks.found("Page", "Page")
    assert len(events) == 2


def test_leaks_of_the_first_version_are_text() -> None:
    leaks = LeakCanary(version=1)
    events = listen(leaks)
    leaks.found("Cart", "Application")
    assert events == [
        ("reportLeak", {"leaks": []}),
        ("reportLeak", {"leaks": ["* Cart has leaked:\n* references Application"]}),
    ]
