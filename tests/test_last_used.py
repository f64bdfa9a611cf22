"""A cache bounded by bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from stemcodecs.last_used import LastUsed


def test_what_was_not_used_for_longest_goes():
    cache = LastUsed[str, str](10)
    for key in "abc":
        assert cache.put(key, key.upper(), 3) == key.upper()
    assert cache.get("a") == "A"
    cache.put("d", "D", 3)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert cache.nbytes == 9


def test_the_last_value_is_kept_whatever_its_size():
    cache = LastUsed[str, str](10)
    cache.put("a", "A", 3)
    cache.put("b", "B", 50)
    assert [cache.get(key) for key in "ab"] == [None, "B"]
    cache.put("c", "C", 1)
    assert [cache.get(key) for key in "bc"] == [None, "C"]


def test_the_value_put_first_wins():
    cache = LastUsed[str, list[int]](10)
    first = cache.put("a", [1], 3)
    assert cache.put("a", [1], 3) is first
    assert cache.nbytes == 3


def test_threads_share_it():
    cache = LastUsed[int, int](50)

    def use(k: int) -> None:
        for n in range(300):
            key = (7 * k + n) % 23
            assert cache.put(key, key, 5) == key
            assert cache.get(key) in (key, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert cache.nbytes <= 50
