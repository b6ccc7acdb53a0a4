"""The names that `tna_jax.federated` had before work, with a warning that names today's."""

import pytest

from tna_jax import federated

OLD = {
    "Own": "ClientState", "Reply": "ClientUpdate", "Sent": "Broadcast", "close": "server_update", "expected": "update_shapes",
    "gather": "aggregate", "init_own": "init_client_state", "problems": "validate_update", "send": "broadcast",
}  # fmt: skip


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_todays_object_and_the_warning_names_it(old):
    with pytest.warns(DeprecationWarning, match=rf"tna_jax\.federated\.{old} is called {OLD[old]} now") as caught:
        value = getattr(federated, old)
    assert value is getattr(federated, OLD[old])
    assert caught[0].filename == __file__  # it points at the user's line
    assert old not in federated.__all__ and OLD[old] in federated.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        federated.nothing  # noqa: B018


def test_todays_names_do_not_warn():
    for name in federated.__all__:
        assert getattr(federated, name) is not None
