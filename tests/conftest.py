"""Fixtures that several test files share: the real engines, started once a session; locks of our own."""

import signal

import pytest
from hypothesis import settings

from tests.support.engine_fixtures import transformers_server, vllm_server

__all__ = ["transformers_server", "vllm_server"]

# What a case costs is no claim of a property test, and a busy machine misses any deadline.
settings.register_profile("servetune", deadline=None)
settings.load_profile("servetune")

# A job in a shell's background is started with Ctrl-C ignored, and its children inherit that: the tests that press
# it must not depend on how they were started.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _locks_of_our_own(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A campaign of the user on this machine neither stops the tests nor is stopped by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield
