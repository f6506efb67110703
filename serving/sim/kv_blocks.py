"""The KV cache of the simulated engine: blocks counted, shared by hash, the oldest unused evicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

Token = str | int


@dataclass(slots=True)
class HeldBlocks:
    """Blocks of one sequence: `private` by count, `shared` by hash, `committed` leading blocks known."""

    private: int = 0
    shared: list[int] = field(default_factory=list)
    committed: int = 0

    @property
    def blocks(self) -> int:
        return self.private + len(self.shared)


class BlockPool:
    """`total` blocks of `block_tokens` tokens. Blocks whose content is known stay after use until evicted."""

    def __init__(self, total: int, block_tokens: int, *, caching: bool) -> None:
        self.total = total
        self.block_tokens = block_tokens
        self.caching = caching
        self._empty = total
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that a sequence can have: empty ones, and known ones that nobody uses."""
        return self._empty + len(self._idle)

    @property
    def usage(self) -> float:
        """Share of the blocks in use by running sequences."""
        return 1.0 - self.free / self.total if self.total else 0.0

    def hashes(self, tokens: Seq[Token], before: int = 0) -> list[int]:
        """A hash for each full block, each over everything before it as well."""
        if not self.caching:
            return []
        size, found = self.block_tokens, []
        for start in range(0, len(tokens) - size + 1, size):
            before = hash((before, tuple(tokens[start : start + size])))
            found.append(before)
        return found

    def share(self, held: HeldBlocks, hashes: Seq[int], limit: int) -> int:
        """Gives `held` the leading blocks of `hashes` that are known, at most `limit`; returns how many."""
        count = 0
        for known in hashes[:limit]:
            if known not in self._users:
                break
            self._users[known] += 1
            self._idle.pop(known, None)
            held.shared.append(known)
            count += 1
        held.committed = count
        return count

    def grow(self, held: HeldBlocks, tokens: int) -> bool:
        """Makes room for `tokens` tokens in all; False, and nothing changed, when blocks are too few."""
        wanted = -(-tokens // self.block_tokens) - held.blocks
        if wanted <= 0:
            return True
        if wanted > self.free:
            return False
        for _ in range(wanted - self._empty):
            self._users.pop(self._idle.popitem(last=False)[0])
            self._empty += 1
        self._empty -= wanted
        held.private += wanted
        return True

    def commit(self, held: HeldBlocks, hashes: Seq[int], tokens: int) -> None:
        """The first `tokens` tokens are computed: their full blocks become known to others."""
        until = min(len(hashes), tokens // self.block_tokens)
        for known in hashes[held.committed : until]:
            if known not in self._users:
                self._users[known] = 1
                held.shared.append(known)
                held.private -= 1
        held.committed = max(held.committed, until)

    def release(self, held: HeldBlocks) -> None:
        """Takes all blocks back; known ones stay cached, the end of a sequence to be evicted first."""
        self._empty += held.private
        for known in reversed(held.shared):
            self._users[known] -= 1
            if not self._users[known]:
                self._idle[known] = None
        held.private, held.shared, held.committed = 0, [], 0

    def reset(self) -> bool:
        """Forgets every cached block; False, and nothing changed, while sequences hold some (as vLLM)."""
        if self.free < self.total:
            return False
        self._users.clear()
        self._idle.clear()
        self._empty = self.total
        return True
