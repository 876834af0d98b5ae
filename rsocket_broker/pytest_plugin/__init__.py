"""Driving an app from pytest: the fixtures `broker`, `app`, `network`, `databases` and more, loaded by pytest itself.

`plugin` is what pytest loads: options, fixtures, reports. It imports the broker when a test first wants it, so that
test runs that have nothing to do with apps do not pay for it.
"""
