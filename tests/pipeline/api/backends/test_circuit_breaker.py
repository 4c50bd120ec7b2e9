"""Tests the states of the circuit breaker, with a clock that is set by hand."""

from __future__ import annotations

from pipeline.api.backends.circuit_breaker import MAX_FAILURES, OPEN_SECONDS, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def open_breaker(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(MAX_FAILURES):
        assert breaker.lets_pass()
        breaker.fail()
    return breaker


def test_it_opens_after_failures_in_a_row_alone() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(3):
        for _ in range(MAX_FAILURES - 1):
            breaker.fail()
        assert not breaker.is_open
        breaker.succeed()
    assert open_breaker(Clock()).is_open


def test_open_it_lets_one_call_pass_at_a_time() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    assert not breaker.lets_pass()
    clock.now += OPEN_SECONDS
    assert (breaker.lets_pass(), breaker.lets_pass()) == (True, False)
    breaker.fail()
    assert (breaker.is_open, breaker.lets_pass()) == (True, False)
    clock.now += OPEN_SECONDS
    assert breaker.lets_pass()


def test_a_trial_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += OPEN_SECONDS
    assert breaker.lets_pass()
    breaker.succeed()
    assert (breaker.is_open, breaker.lets_pass(), breaker.lets_pass()) == (False, True, True)
