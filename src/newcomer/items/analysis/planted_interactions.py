"""Rank of the planted interaction among the edges of item graphs, in simulated data."""

from collections.abc import Mapping, Sequence

import torch

from newcomer.data.schema import Field
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor


def planted_ranks(
    answers: Mapping[int, str],
    nodes: Sequence[Field],
    cold: Float[Tensor, "item field other"],
    graphs: Float[Tensor, "item field other"],
) -> dict[str, Json] | None:
    """Rank of the planted pair of fields among all F (F − 1) / 2 pairs in the items' graphs; None if nothing was planted.

    `answers`: item row → 'one × other'. A pair is found if no other has at least its weight; its rank is 1 then. Ties share their
    mean rank.

    - `items`: number of items with a planted pair; `pairs`: number of candidate pairs;
    - `found`, `rank`: number of items whose pair is found, and its median rank, in the current graphs; `found cold`, `rank cold`:
      in the generated graphs;
    - `names`: the planted pairs, in field order; `kinds`: in the same order, for the items with that pair: number of `items`,
      number `found`, mean `rank`, mean `weights` of all planted pairs, and the heaviest `other` pair in the mean graph with its
      `weight`.
    """
    if not answers:
        return None
    one, other = torch.triu_indices(len(nodes), len(nodes), offset=1)
    fields = [node.name for node in nodes]
    names = [f"{fields[m]} × {fields[n]}" for m, n in zip(one.tolist(), other.tolist(), strict=True)]
    items = torch.tensor(list(answers))
    pair = torch.tensor([names.index(name) for name in answers.values()])
    weights, before = graphs[items][:, one, other], cold[items][:, one, other]
    rank, rank_cold = _ranks(weights, pair), _ranks(before, pair)
    planted = sorted(set(pair.tolist()))
    return {
        "items": len(items),
        "pairs": len(names),
        "found": int((rank == 1).sum()),
        "rank": rank.median().item(),
        "found cold": int((rank_cold == 1).sum()),
        "rank cold": rank_cold.median().item(),
        "names": [names[kind] for kind in planted],
        "kinds": [_kind(weights[pair == kind], rank[pair == kind], planted, names) for kind in planted],
    }


def _ranks(weights: Float[Tensor, "item pair"], pair: Int[Tensor, " item"]) -> Float[Tensor, " item"]:
    planted = weights.gather(1, pair[:, None])
    return 1 + (weights > planted).sum(dim=1) + ((weights == planted).sum(dim=1) - 1) / 2


def _kind(weights: Tensor, rank: Tensor, planted: list[int], names: list[str]) -> dict[str, Json]:
    mean = weights.mean(dim=0)
    rest = mean.clone()
    rest[planted] = -torch.inf
    heaviest = int(rest.argmax())
    return {
        "items": len(rank),
        "found": int((rank == 1).sum()),
        "rank": rank.mean().item(),
        "weights": mean[planted].tolist(),
        "other": names[heaviest],
        "weight": mean[heaviest].item(),
    }
