"""Rules other than the meta-gradient that move one meta-parameter each, between windows."""

from gradweave.agents.tuners.base import AbstractTuner, Seen, check_tuners, seen_by, start_tuners, tune
from gradweave.agents.tuners.bounds import Bounds
from gradweave.agents.tuners.entropy_share import EntropyShare, share_within
from gradweave.agents.tuners.error_scale import ErrorScale
from gradweave.agents.tuners.kl_anneal import KLAnneal
from gradweave.agents.tuners.kl_control import KLControl
from gradweave.agents.tuners.live_evolution import LiveEvolution
from gradweave.agents.tuners.return_choice import ReturnChoice
from gradweave.agents.tuners.target_entropy import TargetEntropy

__all__ = [
    "AbstractTuner",
    "Bounds",
    "EntropyShare",
    "ErrorScale",
    "KLAnneal",
    "KLControl",
    "LiveEvolution",
    "ReturnChoice",
    "Seen",
    "TargetEntropy",
    "check_tuners",
    "seen_by",
    "share_within",
    "start_tuners",
    "tune",
]
