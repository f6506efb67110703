"""Fixtures that several test files share: the real engines, started once a session; locks of our own."""

import pytest
from engine_fixtures import transformers_server, vllm_server

__all__ = ["transformers_server", "vllm_server"]


@pytest.fixture(autouse=True, scope="session")
def _locks_of_our_own(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A campaign of the user on this machine neither stops the tests nor is stopped by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield
