"""Which channels to put first before training: those most often among a sample's top k.

    features ─► Attributor ─► channel shares (n,C), batch by batch ─► ChannelRanking ─► order (C,)

AgileNN (MobiCom'22), section 3.2, Algorithm 1.
"""

import torch
from torch import Tensor


class ChannelRanking:
    """Counts, for each channel, the samples of which it is among the k most important.

    Args:
        k: Channels that the branch reads, 1..C.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self._samples = 0
        self._wins = torch.zeros((), dtype=torch.int64)  # (C,) from the first batch on

    def add(self, shares: Tensor) -> None:
        """Count one batch.

        Of equal channels the earlier one is among the top; one of no importance never is.

        Args:
            shares: Each channel's share of each sample's importance, (n, C).
        """
        shares = shares.detach().cpu()
        ranked = shares.argsort(dim=1, descending=True, stable=True)
        top = torch.zeros_like(shares, dtype=torch.bool).scatter_(1, ranked[:, : self.k], True)
        self._wins = self._wins + (top & (shares > 0)).sum(dim=0)
        self._samples += len(shares)

    @property
    def likelihood(self) -> Tensor:
        """p_c, the share of samples of which channel c is among the top k, float64 (C,)."""
        return self._wins.double() / max(self._samples, 1)

    def order(self) -> Tensor:
        """Old places of the channels in their new order, int64 (C,): ``features[:, order]``.

        The k of greatest likelihood come first, the most likely first; the others follow as they
        stood. Of equally likely channels the earlier one comes first.
        """
        chosen = self._wins.argsort(descending=True, stable=True)[: self.k]
        others = torch.ones_like(self._wins, dtype=torch.bool).index_fill_(0, chosen, False)
        return torch.cat([chosen, others.nonzero()[:, 0]])
