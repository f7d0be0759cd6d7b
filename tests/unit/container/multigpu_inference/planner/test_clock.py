from __future__ import annotations

from multigpu_inference.planner.clock import Clock, Process, Queue, Resource


def run(clock: Clock) -> None:
    while clock.step():
        pass


def test_time_passes_as_processes_ask() -> None:
    clock, seen = Clock(), list[tuple[str, float]]()

    def process(name: str, *pauses: float) -> Process:
        for pause in pauses:
            yield pause
            seen.append((name, clock.now))

    clock.start(process("a", 3.0, 4.0))
    clock.start(process("b", 5.0), after_ms=1.0)
    run(clock)
    assert seen == [("a", 3.0), ("b", 6.0), ("a", 7.0)]


def test_what_is_due_at_one_moment_happens_in_the_order_of_asking() -> None:
    clock, seen = Clock(), list[int]()

    def process(number: int) -> Process:
        yield 1.0
        seen.append(number)

    for number in range(5):
        clock.start(process(number))
    run(clock)
    assert seen == [0, 1, 2, 3, 4]


def test_who_waits_is_woken_once_and_in_turn() -> None:
    clock, queue, seen = Clock(), Queue(), list[tuple[int, float]]()

    def waiter(number: int) -> Process:
        yield queue
        seen.append((number, clock.now))

    def waker() -> Process:
        yield 2.0
        clock.wake(queue)
        yield 2.0
        clock.wake(queue)
        clock.wake(queue)  # nobody is left

    for number in range(2):
        clock.start(waiter(number))
    clock.start(waker())
    run(clock)
    assert seen == [(0, 2.0), (1, 4.0)]


def holders(clock: Clock, resource: Resource, urgent: set[int], count: int) -> list[tuple[int, float]]:
    begun = list[tuple[int, float]]()

    def hold(number: int) -> Process:
        yield from resource.take(urgent=number in urgent)
        begun.append((number, clock.now))
        yield 10.0
        resource.give()

    for number in range(count):
        clock.start(hold(number))
    run(clock)
    return begun


def test_a_resource_has_so_many_places_and_a_line() -> None:
    clock = Clock()
    assert holders(clock, Resource(clock, 2), set(), 5) == [(0, 0.0), (1, 0.0), (2, 10.0), (3, 10.0), (4, 20.0)]


def test_who_is_urgent_goes_before_the_others_in_line() -> None:
    clock = Clock()
    assert [number for number, _ in holders(clock, Resource(clock), {3}, 4)] == [0, 3, 1, 2]


def test_utilisation_is_the_share_of_places_taken_since_it_was_forgotten() -> None:
    clock = Clock()
    resource = Resource(clock, 2)
    holders(clock, resource, set(), 3)  # two for 10 ms, one for 10 more
    assert resource.utilisation() == 0.75
    resource.forget()
    holders(clock, resource, set(), 1)
    assert resource.utilisation() == 0.5
