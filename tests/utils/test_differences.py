"""Where nested values of JSON differ."""

from smt_hf.utils.differences import differences


def test_differences():
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) == {}
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == {"a.1.b": (2, 3)}
    assert differences({"a": 1, "b": 2}, {"a": 1}) == {"b": (2, None)}
    assert differences({"a": 1}, {"c": 2, "a": 3}) == {"c": (None, 2), "a": (1, 3)}
    assert differences({"a": [1]}, {"a": [1, 2]}) == {"a": ([1], [1, 2])}
    assert differences({"a": {"b": 1}}, {"a": None}) == {"a": ({"b": 1}, None)}
    assert differences({"a": None}, {}) == {}
