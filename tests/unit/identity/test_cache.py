"""The cache of answers."""

from kaa_gateway.identity.cache import Cache


async def test_a_cache_has_its_bound_and_forgets_what_is_over() -> None:
    forgotten: list[str] = []
    cache: Cache[str, int] = Cache(2, lambda key, value: forgotten.append(key))
    cache.put("a", 1, float("inf"))
    cache.put("b", 2, float("inf"))
    assert cache.get("a") == 1
    cache.put("c", 3, float("inf"))
    assert (len(cache), forgotten, cache.evicted) == (2, ["b"], 1)
    cache.put("d", 4, 0)
    assert cache.get("d") is None
    assert cache.get("c") == 3
    cache.clear()
    assert cache.get("c") is None
    assert (len(cache), cache.hits, cache.misses) == (0, 2, 2)
