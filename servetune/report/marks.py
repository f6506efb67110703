"""Sign, word and colour of verdicts, of a measurement's validity and of a candidate's rank: each map once."""

from __future__ import annotations

from bench.records.model import Validity
from servetune.report.ranking import Rank
from serving.claims import Verdict

VERDICT_COLOUR: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
VERDICT_MARK: dict[Verdict, str] = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"}
VERDICT_SHORT: dict[Verdict, str] = {"PASS": "✓ pass", "FAIL": "✗ fail", "INCONCLUSIVE": "? open"}
VERDICT_RANK: dict[Verdict, Rank] = {"PASS": "fit", "FAIL": "invalid", "INCONCLUSIVE": "doubtful"}
"""The rank whose style on a page it shares; VALIDITY_RANK likewise."""

VALIDITY_COLOUR: dict[Validity, str] = {"ok": "green", "suspect": "yellow", "invalid": "red"}
VALIDITY_RANK: dict[Validity, Rank] = {"ok": "fit", "suspect": "doubtful", "invalid": "invalid"}

RANK_MARK: dict[Rank, str] = {
    "fit": "✓ ok",
    "doubtful": "? suspect",
    "slo missed": "– SLO missed",
    "below floor": "✗ accuracy",
    "simulated": "~ simulated",
    "invalid": "✗ invalid",
    "failed": "! failed",
}
"""Sign and word together: never colour alone."""
RANK_COLOUR: dict[Rank, str] = {
    "fit": "green",
    "doubtful": "yellow",
    "slo missed": "dim",
    "below floor": "red",
    "simulated": "cyan",
    "invalid": "red",
    "failed": "red",
}
