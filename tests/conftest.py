"""Fixtures that several test files share: the real engines, started once a session."""

from engine_fixtures import transformers_server, vllm_server

__all__ = ["transformers_server", "vllm_server"]
